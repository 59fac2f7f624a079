-- resty.jdbfs: jdbfs in nginx, under the name that OpenResty's users expect. The same module, with
-- the host chosen.

local jdbfs = require "jdbfs"

if require("jdbfs.host").name() == nil then assert(jdbfs.host("ngx")) end

return jdbfs
