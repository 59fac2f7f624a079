-- Runs busted on Windows, for check-windows.sh. Of two C modules busted takes only a clock, a sleep
-- and whether it writes to a terminal.
local clock, wait = os.clock, nil

package.preload.system = function()
  function wait(seconds)
    local until_then = clock() + seconds
    while clock() < until_then do end
  end
  return { gettime = os.time, monotime = clock, sleep = wait }
end
package.preload.term = function()
  return { isatty = function() return false end }
end
require("busted.runner")({ standalone = false })
