-- Driver of spec/hosts/scenario.lua for nginx: the body of a content handler.

return function(dir)
  local ngx = rawget(_G, "ngx")
  local check = require "hosts.scenario"
  local lines = {}
  local h = { name = "ngx", dir = dir, stackful = true, sleep = ngx.sleep, kill = ngx.thread.kill }
  h.adapter = assert(require("jdbfs.host.ngx")())

  function h.go(f) return (assert(ngx.thread.spawn(f))) end

  check.begin(h)
  check.run(h, function(name, wrong)
    lines[#lines + 1] = wrong and ("fail\t%s\t%s"):format(name, (wrong:gsub("\n", " | ")))
      or "pass\t" .. name
  end)
  ngx.say(table.concat(lines, "\n"))
  check.leave(h)
  ngx.exit(200)
end
