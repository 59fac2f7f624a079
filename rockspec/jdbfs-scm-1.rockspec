rockspec_format = "3.0"
package = "jdbfs"
version = "scm-1"

source = {
  url = "git+https://github.com/jdbfs/jdbfs.git",
}

description = {
  summary = "Asynchronous direct I/O for Lua coroutines",
  detailed = [[
Files for databases: aligned buffers, reads and writes that bypass the page cache, durable
writes, and coroutines that yield on submission and resume on completion. io_uring where the
kernel allows it, worker threads elsewhere. Building needs a C compiler and liburing (Debian:
liburing-dev, Fedora: liburing-devel).
]],
  homepage = "https://github.com/jdbfs/jdbfs",
  license = "MIT",
}

supported_platforms = { "linux" }

dependencies = { "lua >= 5.1" }

-- Everything about a platform stands below its own name: LuaRocks merges platform tables by index,
-- so a list on top would mix with it, and "unix" would match as well as "linux".
external_dependencies = {
  platforms = {
    linux = {
      LIBURING = { header = "liburing.h", library = "uring" },
    },
  },
}

-- luarocks test rockspec/jdbfs-scm-1.rockspec -- T=spec/20-file_spec.lua: as for `make test`.
test = { type = "command", command = "make test" }

build = {
  type = "builtin",
  modules = {
    ["jdbfs"] = "lua/jdbfs/init.lua",
    ["jdbfs.cli"] = "lua/jdbfs/cli.lua",
    ["jdbfs.command.ab"] = "lua/jdbfs/command/ab.lua",
    ["jdbfs.command.acknowledged"] = "lua/jdbfs/command/acknowledged.lua",
    ["jdbfs.command.arguments"] = "lua/jdbfs/command/arguments.lua",
    ["jdbfs.command.bootstrap"] = "lua/jdbfs/command/bootstrap.lua",
    ["jdbfs.command.catalogue"] = "lua/jdbfs/command/catalogue.lua",
    ["jdbfs.command.compare"] = "lua/jdbfs/command/compare.lua",
    ["jdbfs.command.conclusion"] = "lua/jdbfs/command/conclusion.lua",
    ["jdbfs.command.context"] = "lua/jdbfs/command/context.lua",
    ["jdbfs.command.device"] = "lua/jdbfs/command/device.lua",
    ["jdbfs.command.distribution"] = "lua/jdbfs/command/distribution.lua",
    ["jdbfs.command.engine"] = "lua/jdbfs/command/engine.lua",
    ["jdbfs.command.figures"] = "lua/jdbfs/command/figures.lua",
    ["jdbfs.command.format"] = "lua/jdbfs/command/format.lua",
    ["jdbfs.command.html"] = "lua/jdbfs/command/html.lua",
    ["jdbfs.command.html_charts"] = "lua/jdbfs/command/html_charts.lua",
    ["jdbfs.command.json"] = "lua/jdbfs/command/json.lua",
    ["jdbfs.command.list"] = "lua/jdbfs/command/list.lua",
    ["jdbfs.command.machine"] = "lua/jdbfs/command/machine.lua",
    ["jdbfs.command.measured"] = "lua/jdbfs/command/measured.lua",
    ["jdbfs.command.options"] = "lua/jdbfs/command/options.lua",
    ["jdbfs.command.outputs"] = "lua/jdbfs/command/outputs.lua",
    ["jdbfs.command.plot"] = "lua/jdbfs/command/plot.lua",
    ["jdbfs.command.probe"] = "lua/jdbfs/command/probe.lua",
    ["jdbfs.command.progress"] = "lua/jdbfs/command/progress.lua",
    ["jdbfs.command.report"] = "lua/jdbfs/command/report.lua",
    ["jdbfs.command.result"] = "lua/jdbfs/command/result.lua",
    ["jdbfs.command.run"] = "lua/jdbfs/command/run.lua",
    ["jdbfs.command.scratch"] = "lua/jdbfs/command/scratch.lua",
    ["jdbfs.command.screen"] = "lua/jdbfs/command/screen.lua",
    ["jdbfs.command.screen_plots"] = "lua/jdbfs/command/screen_plots.lua",
    ["jdbfs.command.stamp"] = "lua/jdbfs/command/stamp.lua",
    ["jdbfs.command.status"] = "lua/jdbfs/command/status.lua",
    ["jdbfs.command.svg"] = "lua/jdbfs/command/svg.lua",
    ["jdbfs.command.threshold"] = "lua/jdbfs/command/threshold.lua",
    ["jdbfs.command.trust"] = "lua/jdbfs/command/trust.lua",
    ["jdbfs.command.units"] = "lua/jdbfs/command/units.lua",
    ["jdbfs.command.verified"] = "lua/jdbfs/command/verified.lua",
    ["jdbfs.command.verify"] = "lua/jdbfs/command/verify.lua",
    ["jdbfs.example.copy"] = "lua/jdbfs/example/copy.lua",
    ["jdbfs.example.cqueues_worker"] = "lua/jdbfs/example/cqueues_worker.lua",
    ["jdbfs.example.kv"] = "lua/jdbfs/example/kv.lua",
    ["jdbfs.example.lsm"] = "lua/jdbfs/example/lsm.lua",
    ["jdbfs.example.luv_server"] = "lua/jdbfs/example/luv_server.lua",
    ["jdbfs.example.nginx_objects"] = "lua/jdbfs/example/nginx_objects.lua",
    ["jdbfs.example.objects"] = "lua/jdbfs/example/objects.lua",
    ["jdbfs.example.pages"] = "lua/jdbfs/example/pages.lua",
    ["jdbfs.example.tarantool_objects"] = "lua/jdbfs/example/tarantool_objects.lua",
    ["jdbfs.host"] = "lua/jdbfs/host.lua",
    ["jdbfs.host.copas"] = "lua/jdbfs/host/copas.lua",
    ["jdbfs.host.cqueues"] = "lua/jdbfs/host/cqueues.lua",
    ["jdbfs.host.luv"] = "lua/jdbfs/host/luv.lua",
    ["jdbfs.host.ngx"] = "lua/jdbfs/host/ngx.lua",
    ["jdbfs.host.tarantool"] = "lua/jdbfs/host/tarantool.lua",
    ["jdbfs.log"] = "lua/jdbfs/log.lua",
    ["jdbfs.meta"] = "lua/jdbfs/meta.lua",
    ["jdbfs.sim"] = "lua/jdbfs/sim.lua",
    ["jdbfs.stream"] = "lua/jdbfs/stream.lua",
    ["jdbfs.sync"] = "lua/jdbfs/sync.lua",
    ["jdbfs.workload"] = "lua/jdbfs/workload.lua",
    ["jdbfs.workload.lsm"] = "lua/jdbfs/workload/lsm.lua",
    ["jdbfs.workload.matrix"] = "lua/jdbfs/workload/matrix.lua",
    ["jdbfs.workload.mixed"] = "lua/jdbfs/workload/mixed.lua",
    ["jdbfs.workload.pages"] = "lua/jdbfs/workload/pages.lua",
    ["jdbfs.workload.randread"] = "lua/jdbfs/workload/randread.lua",
    ["jdbfs.workload.randwrite"] = "lua/jdbfs/workload/randwrite.lua",
    ["jdbfs.workload.replay"] = "lua/jdbfs/workload/replay.lua",
    ["jdbfs.workload.seqread"] = "lua/jdbfs/workload/seqread.lua",
    ["jdbfs.workload.seqwrite"] = "lua/jdbfs/workload/seqwrite.lua",
    ["jdbfs.workload.syncs"] = "lua/jdbfs/workload/syncs.lua",
    ["jdbfs.workload.wal"] = "lua/jdbfs/workload/wal.lua",
    ["jdbfs.workload_meta"] = "lua/jdbfs/workload_meta.lua",
    ["resty.jdbfs"] = "lua/resty/jdbfs.lua",
  },
  platforms = {
    linux = {
      modules = {
        ["jdbfs.core"] = {
          sources = {
            "csrc/error.c",
            "csrc/buf.c",
            "csrc/crc32c.c",
            "csrc/file.c",
            "csrc/op.c",
            "csrc/queue.c",
            "csrc/sync.c",
            "csrc/names.c",
            "csrc/histogram.c",
            "csrc/random.c",
            "csrc/be_uring.c",
            "csrc/be_pool.c",
            "csrc/be_sim.c",
            "csrc/be_sim_op.c",
            "csrc/be_sim_disk.c",
            "csrc/os_posix.c",
            "csrc/os_posix_names.c",
            "csrc/os_posix_relay.c",
            "csrc/os_linux.c",
            "csrc/os_linux_evidence.c",
            "csrc/os_cpu.c",
            "csrc/lua_core.c",
            "csrc/lua_error.c",
            "csrc/lua_buf.c",
            "csrc/lua_file.c",
            "csrc/lua_fs.c",
            "csrc/lua_log.c",
            "csrc/lua_queue.c",
            "csrc/lua_task.c",
            "csrc/lua_sim.c",
            "csrc/lua_measure.c",
            "csrc/lua_random.c",
          },
          defines = { "_GNU_SOURCE" },
          incdirs = { "csrc", "$(LIBURING_INCDIR)" },
          libdirs = { "$(LIBURING_LIBDIR)" },
          libraries = { "uring", "pthread", "dl", "m" },
        },
      },
    },
  },
  install = {
    bin = { jdbfs = "lua/bin/jdbfs" },
  },
}
