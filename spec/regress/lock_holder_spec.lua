-- Who holds a lock was looked up by the file's number alone: a file with the same number on another
-- file system lent its owner's name.

local lfs = require("lfs")
local support = require("support")

-- Two file systems made alike, in a mount namespace of its own; on each a process holds a lock.
local SCRIPT = [[
  PATH=$PATH:/usr/sbin:/sbin; dir=$1; shift
  for n in 1 2; do
    truncate -s 8M $dir/image$n && mkfs.ext4 -q -F $dir/image$n && mkdir $dir/point$n &&
      mount -o loop $dir/image$n $dir/point$n || { echo "no mount"; exit 1; }
    "$@" hold $dir/point$n >$dir/out$n 2>&1 & eval pid$n=$!
    tries=0
    until [ -e $dir/point$n/held ] || [ $tries = 500 ]; do sleep 0.02; tries=$((tries + 1)); done
  done
  for n in 1 2; do eval echo \$pid$n; "$@" try $dir/point$n; done
  kill $pid1 $pid2; wait; umount $dir/point1 $dir/point2
]]

describe("a lock that is held", function()
  support.setup()

  it("is told with the process that holds it, not one of another file system", function()
    local why = support.on_sim or support.lacks("root", "unshare", "mkfs.ext4", "truncate")
    if why then return pending(why) end
    local dir = support.path("d")
    lfs.mkdir(dir)
    local r = support.script([==[
      local jdbfs = require("jdbfs")
      local role, point = arg[1], arg[2]
      local f, message = jdbfs.open_rw(point .. "/f", { lock = "exclusive", direct = "off" })
      if role == "try" then return print(message) end
      assert(jdbfs.create(point .. "/held", { direct = "off" })):close()
      while f do jdbfs.sleep(1) end
    ]==], { prefix = "unshare -m sh -c " .. support.quote(SCRIPT) .. " sh " .. support.quote(dir) })
    if r.out:find("no mount") then return pending("a loop device cannot be mounted here") end
    local first, told_first, second, told_second =
      r.out:match("^(%d+)\n([^\n]+)\n(%d+)\n([^\n]+)\n$")
    assert(first, r.out .. r.err)
    assert(told_first:find("process " .. first .. " holds", 1, true), r.out)
    assert(told_second:find("process " .. second .. " holds", 1, true), r.out)
  end)
end)
