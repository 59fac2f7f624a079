-- Runs busted under whatever interpreter runs this file. The installed `busted` may be a shell
-- script that picks another Lua.
require("busted.runner")({ standalone = false })
