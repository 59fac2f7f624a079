-- The headline: a file system that stands still for a second must be seen in the percentiles of an
-- open loop. A closed loop, or a latency that starts with the submission, shows a few slow writes.

local distribution = require("jdbfs.command.distribution")
local result = require("jdbfs.command.result")
local support = require("support")

local RATE, SECONDS = 1000, 6

describe("jdbfs run over a file system that is frozen for a second", function()
  local place, mounted

  -- Unmounting works only when nothing is frozen; both are done whatever the test did.
  after_each(function()
    if not mounted then return end
    support.sh("fsfreeze -u " .. support.quote(place .. "/mnt"))
    assert.are.equal(0, (support.sh("umount " .. support.quote(place .. "/mnt"))))
    mounted = false
  end)

  support.setup() -- behind it: the directory is removed when nothing is mounted there

  it("shows that second in p90 and p99 of the response, hardly in the service", function()
    local why = support.lacks("root", "mkfs.ext4", "fsfreeze", "truncate", "timeout")
    local interpreter = os.getenv("JDBFS_TEST_LUA")
    if not why and not interpreter then why = "JDBFS_TEST_LUA names no interpreter" end
    if why then return pending(why) end
    place = support.path()
    local status, out = support.sh(([[
      mkdir -p '%s/mnt' && truncate -s 200M '%s/fs.img' && mkfs.ext4 -q -F '%s/fs.img' &&
      mount -o loop '%s/fs.img' '%s/mnt']]):format(place, place, place, place, place))
    if status ~= 0 then return pending("no loop mount here: " .. out:sub(1, 100)) end
    mounted = true
    status, out = support.sh(([[
      %s lua/bin/jdbfs run randwrite --dir '%s/mnt' --size 64m --qd 8 --rate %d --arrival const \
        --time %ds --warmup 0s --interval 500ms --quiet --json '%s/out.json' \
        --live-json '%s/rows' & run=$!
      for i in $(seq 300); do [ -s '%s/rows' ] && break; sleep 0.1; done
      sleep 1.5; fsfreeze -f '%s/mnt'; sleep 1; fsfreeze -u '%s/mnt'; wait $run]])
      :format(interpreter, place, RATE, SECONDS, place, place, place, place, place))
    assert.are.equal(0, status, out)
    local document = assert(result.load(place .. "/out.json"))
    local job = document.jobs[1]
    local op = job.ops[1]
    local function response(p) return distribution.percentile(op.response, p) / 1e6 end
    assert.is_true(math.abs(op.n - RATE * SECONDS) <= RATE * SECONDS / 100, op.n .. " writes")
    assert.is_true(response(90) >= 300, ("p90 %.0f ms"):format(response(90)))
    assert.is_true(response(99) >= 900, ("p99 %.0f ms"):format(response(99)))
    assert.is_true(response(99) < 2500, ("p99 %.0f ms"):format(response(99)))
    -- What a tool that starts its clock at the submission would print.
    local service = distribution.percentile(op.service, 90) / 1e6
    assert.is_true(service < 100, ("service p90 %.0f ms"):format(service))
    assert.is_true(job.backlog_max > RATE / 2, job.backlog_max .. " arrivals waited")
  end)
end)
