-- The jdbfs command: finds the verb and runs it. Everything else is in jdbfs.command.
--
-- main(args [, out, err]) runs the command with a list of words; out and err are anything with a
-- write method. It gives the exit status: 0 ok, 1 I/O or script error, 2 usage or refusal,
-- 3 threshold failed, 4 verification failed, 130 interrupted.

local status = require("jdbfs.command.status")

local ipairs, pcall, require, tostring = ipairs, pcall, require, tostring
local stdout, stderr = io.stdout, io.stderr

local HELP = [[
jdbfs: storage workloads as Lua coroutines over asynchronous direct I/O

  jdbfs run [WORKLOAD | FILE.lua ...] [options] [workload options]
                                     run workloads on files that it makes, and then removes
  jdbfs list [WORKLOAD]              the workloads, or one's options
  jdbfs probe [PATH ...] [--json]    what machine, file system and device offer
  jdbfs verify FILE [--state D] [--json]
                                     re-read a file written with --verify, name every bad page;
                                     D: the log of acknowledged writes, to find lost ones
  jdbfs compare A.json B.json [--fail-on 'read.p99>+10%'] [--noise 2%] [--force] [--json F|-]
                                     two results, with intervals; A... --to B... takes several
  jdbfs report RUN.json ... -o F     one self-contained page; F ends in .html, or for one result
                                     .svg .csv .ndjson .hgrm; --overwrite replaces it
  jdbfs ab [-n 15] A B [options]     two workloads in alternating pairs
  jdbfs --help | --version
]]

local STATUSES = [[

Exit status: 0 ok, 1 I/O or script error, 2 usage or refusal, 3 threshold failed,
4 verification failed, 130 interrupted.
]]

-- verb = module of jdbfs.command with a function main(words behind the verb, out, err).
local VERBS = { run = "run", list = "list", probe = "probe", verify = "verify",
  compare = "compare", report = "report", ab = "ab" }

local function load_jdbfs()
  local loaded, jdbfs = pcall(require, "jdbfs")
  if not loaded then
    status.fail(status.FAILED, "the module jdbfs does not load: " .. tostring(jdbfs))
  end
  return jdbfs
end

local function say_help(out)
  out:write(HELP, "\nOptions of run:", require("jdbfs.command.options").run_help(), "\n", STATUSES)
end

local function say_version(out)
  local info = load_jdbfs().info()
  out:write(("jdbfs %s (%s)\n"):format(tostring(info and info.version),
    require("jdbfs.command.machine").lua_name()))
end

local function command(args, out, err)
  local verb = args[1]
  for _, word in ipairs(args) do
    if word == "--" then break end
    if word == "--help" or word == "-h" then verb = "--help" end
  end
  if not verb then status.usage("no command given; see jdbfs --help") end
  if verb == "--help" then
    say_help(out)
  elseif verb == "--version" then
    say_version(out)
  elseif VERBS[verb] then
    load_jdbfs()
    local words = {}
    for i = 2, #args do words[i - 1] = args[i] end
    local found, module = pcall(require, "jdbfs.command." .. VERBS[verb])
    if not found then status.fail(status.FAILED, tostring(module)) end
    return module.main(words, out, err)
  else
    status.usage("there is no command %q; see jdbfs --help", verb)
  end
  return status.OK
end

-- out, noting what could not be written.
local function watch(out)
  local watched = { inner = out }
  function watched:write(...)
    local _, why = out:write(...)
    self.lost = self.lost or why
  end
  return watched
end

local function main(args, out, err)
  out, err = out or stdout, err or stderr
  local watched = watch(out)
  local called, result = status.attempt(function() return command(args, watched, err) end)
  local exit = called and result or result.status
  if not called then err:write("jdbfs: ", result.message, "\n") end
  local _, why
  if out.flush then _, why = out:flush() end
  why = watched.lost or why
  if not why then return exit end
  err:write("jdbfs: standard output: ", tostring(why), "\n")
  return exit == status.OK and status.FAILED or exit
end

return { main = main }
