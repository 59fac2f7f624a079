-- Driver of spec/hosts/scenario.lua for luv: luv.lua DIRECTORY; inside Neovim for its own luv.

local check = require "hosts.scenario"

local vim = rawget(_G, "vim")
local uv = vim and (vim.uv or vim.loop) or require "luv"
local h = { name = "luv", dir = os.getenv("JDBFS_HOST_DIR") or arg[1] }
h.adapter = assert(require("jdbfs.host.luv")())

function h.go(f)
  local co = coroutine.create(function()
    f()
  end)
  local ok, why = coroutine.resume(co)
  if not ok then check.print("a light thread", tostring(why)) end
  return co
end

function h.sleep(s)
  local co = coroutine.running()
  local timer = uv.new_timer()
  uv.update_time() -- what the loop takes for now may be a while ago
  timer:start(math.floor(s * 1000 + 0.5), 0, function()
    timer:stop()
    timer:close()
    assert(coroutine.resume(co))
  end)
  coroutine.yield()
end

if coroutine.close then h.kill = coroutine.close end
h.resume = coroutine.resume

check.begin(h)
check.in_place(h)
local over = false
h.go(function()
  check.run(h, check.print)
  check.leave(h)
  over = true
  uv.stop()
end)
if vim then
  vim.wait(60000, function() return over end, 5)
  vim.cmd("qall!")
else
  uv.run()
  check.print("the loop ended", nil)
end
