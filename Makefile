# jdbfs: `make help` lists the targets. Needs GNU make, bash, a C11 compiler, liburing and a Lua.

# ---- what is built ---------------------------------------------------------------------------
# The rockspec has the same lists; `make tidy` compares them.

CORE_SRC := error arena buf crc32c file op queue sync names histogram random
LUA_SRC  := lua_core lua_error lua_buf lua_file lua_fs lua_log lua_queue lua_task lua_sim \
            lua_measure lua_random

PLATFORM := $(shell uname -s)
SIM_SRC  := be_sim be_sim_op be_sim_disk
POSIX_SRC := be_pool be_null $(SIM_SRC) os_posix os_posix_names os_posix_open os_posix_relay \
             os_cpu os_lock
PLATFORM_SRC_Linux  := be_uring be_uring_poll be_uring_register $(POSIX_SRC) os_posix_clock \
                       os_linux os_linux_evidence
PLATFORM_LIBS_Linux  = $(URING_LIBS) -lpthread -ldl -lm
PLATFORM_SRC_Darwin := be_kqueue $(POSIX_SRC) os_bsd_common os_bsd_statfs os_macos os_macos_calls
PLATFORM_SRC_FreeBSD := be_kqueue $(POSIX_SRC) os_posix_clock os_bsd os_bsd_common os_bsd_statfs
PLATFORM_LIBS_FreeBSD := -lpthread -lm
PLATFORM_SRC_Windows := be_iocp be_pool be_null $(SIM_SRC) os_windows os_windows_file \
                        os_windows_names os_windows_evidence os_windows_text os_cpu os_lock
PLATFORM_LIBS_Windows = -Wl,-Bstatic -lssp -lpthread -Wl,-Bdynamic -static-libgcc
PLATFORM_SRC  := $(PLATFORM_SRC_$(PLATFORM))
PLATFORM_LIBS  = $(PLATFORM_LIBS_$(PLATFORM))

# Faults on purpose, for the specs: make FAULTS=1, in directories of its own, never installed. Calls
# between our files and out of them go through be_faults.c, which has the reasons.
FAULTS_SRC     := be_faults
FAULTS_LUA_SRC := lua_faults
FAULTS_WRAP := jdb_backends jdb_arrive jdb_pool_submit jdb_pool_perform jdb_os_perform \
    jdb_op_abandon jdb_os_map jdb_os_unmap malloc calloc realloc free strdup getline __getdelim \
    pthread_create io_uring_queue_init_params io_uring_register_probe io_uring_register_eventfd \
    io_uring_enter2 io_uring_submit_and_wait_timeout \
    io_uring_wait_cqe_timeout open openat close fopen opendir closedir readdir fstat stat lstat \
    fstatat fstatfs fstatvfs statvfs fcntl ioctl syscall pread pwrite pwritev2 write ftruncate \
    fallocate fsync fdatasync flock renameat mkdir unlink unlinkat fchmod fchown eventfd
ifdef FAULTS
FAULTS_SUFFIX := -faults
PLATFORM_SRC  += $(FAULTS_SRC)
LUA_SRC       += $(FAULTS_LUA_SRC)
endif

# STANDIN=macos: what macOS runs, but on Linux and over stand-ins for its calls. For tests, in
# directories of its own, never installed.
ifeq ($(STANDIN),macos)
TARGET        := macos-standin
STANDIN_SRC   := calls kqueue
PLATFORM_SRC  := $(filter-out os_macos_calls os_bsd_statfs,$(PLATFORM_SRC_Darwin)) os_posix_clock
PLATFORM_LIBS := -lpthread -ldl -lm
endif

LUA_MODULES := $(sort $(shell find lua/jdbfs lua/resty -name '*.lua'))

# The version stands in jdb.h; `make tidy` holds everything else that names it against that.
VERSION := $(shell sed -n 's/^\#define JDB_VERSION "\(.*\)"/\1/p' csrc/jdb.h)
ROCKSPEC := rockspec/jdbfs-scm-1.rockspec
RELEASE_ROCKSPEC := rockspec/jdbfs-$(VERSION)-1.rockspec

comma := ,

# ---- compiler --------------------------------------------------------------------------------

ifeq ($(origin CC),default)
CC := $(or $(notdir $(shell for c in cc gcc clang; do command -v $$c && break; done)),cc)
endif
AR ?= ar
PKG_CONFIG ?= pkg-config
export PKG_CONFIG

URING_CFLAGS ?= $(shell $(PKG_CONFIG) --cflags liburing 2>/dev/null)
URING_LIBS   ?= $(or $(shell $(PKG_CONFIG) --libs liburing 2>/dev/null),-luring)

ifdef SAN
CFLAGS ?= -O1 -g
else
CFLAGS ?= -O2 -g
endif

MUST_CFLAGS := -std=c11 -D_GNU_SOURCE -fPIC -fvisibility=hidden -pthread -Wall -Wextra -pedantic \
               -Wshadow -Wundef -Wstrict-prototypes -Wmissing-prototypes
PLATFORM_LDFLAGS := -Wl,-z,relro,-z,now
MODULE_LDFLAGS   := -shared
MODULE_SUFFIX    := so
ifeq ($(PLATFORM),Darwin)
PLATFORM_LDFLAGS :=
MODULE_LDFLAGS   := -bundle -undefined dynamic_lookup
endif
ifeq ($(PLATFORM),Windows)
PLATFORM_LDFLAGS :=
MODULE_SUFFIX    := dll
endif
ifdef STANDIN
MUST_CFLAGS += -Ispec/c/$(STANDIN)
endif
MUST_LDFLAGS := -pthread $(PLATFORM_LDFLAGS)

ifdef FAULTS
MUST_CFLAGS += -DJDB_FAULTS -DJDB_DEBUG
MUST_LDFLAGS += $(addprefix -Wl$(comma)--wrap=,$(FAULTS_WRAP))
endif

ifndef SAN
SAN_SUFFIX :=
MUST_CFLAGS += -fstack-protector-strong
ifndef FAULTS # fortified calls have other names
# Fortified libc calls need an optimising compiler and warn without one.
ifneq ($(filter-out -O0,$(lastword $(filter -O%,$(CFLAGS)))),)
MUST_CFLAGS += -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
endif
endif
else ifeq ($(SAN),address)
SAN_SUFFIX := -asan
SAN_CFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
else ifeq ($(SAN),undefined)
SAN_SUFFIX := -ubsan
SAN_CFLAGS := -fsanitize=undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
else ifeq ($(SAN),thread)
SAN_SUFFIX := -tsan
SAN_CFLAGS := -fsanitize=thread -fno-omit-frame-pointer
else ifeq ($(SAN),coverage)
SAN_SUFFIX := -cov
SAN_CFLAGS := --coverage -fprofile-update=atomic -O0
# Around the module's entry: spec/tools/cover.c.
COVER_CFLAGS := -Dluaopen_jdbfs_core=uncovered_jdbfs_core \
                -DJDBFS_COVER='"$(CURDIR)/build/coverage/ran"'
else
$(error jdbfs: SAN=$(SAN) is none of address, undefined, thread, coverage)
endif
ifdef SAN
MUST_CFLAGS += $(SAN_CFLAGS)
# Reports name functions only while the module stays loaded, so lua_close must not unload it.
MUST_LDFLAGS += $(SAN_CFLAGS) -Wl,-z,nodelete
endif

CORE_CFLAGS = $(CFLAGS) $(CPPFLAGS) $(MUST_CFLAGS) $(URING_CFLAGS)
LUA_CFLAGS  = $(CFLAGS) $(CPPFLAGS) $(MUST_CFLAGS) $(COVER_CFLAGS) \
              $(addprefix -isystem ,$(filter-out /usr/include,$(LUA_INC)))
ALL_LDFLAGS = $(MUST_LDFLAGS) $(LDFLAGS)

# ---- Lua -------------------------------------------------------------------------------------

LUA ?=
LUA_INCDIR ?=
NO_LUA_GOALS := help clean deps run test all-luas core c-tests coverage analyze fuzz valgrind soak \
                sequences torture powercut bench bench-counts rockspec dist install-core \
                uninstall-core compile_commands check-macos check-macos-build \
                check-freebsd-build check-windows
ifneq ($(or $(if $(MAKECMDGOALS),,all),$(filter-out $(NO_LUA_GOALS),$(MAKECMDGOALS))),)
LUA_FOUND := $(shell bash spec/tools/lua.sh find '$(LUA)' '$(LUA_INCDIR)')
ifeq ($(firstword $(LUA_FOUND)),ok)
LUA_ID  := $(word 2,$(LUA_FOUND))
LUA_ABI := $(word 3,$(LUA_FOUND))
LUA_EXE := $(word 4,$(LUA_FOUND))
LUA_INC := $(word 5,$(LUA_FOUND))
else
LUA_ID    := none
LUA_ERROR := $(or $(wordlist 2,99,$(LUA_FOUND)),jdbfs: spec/tools/lua.sh failed; is bash installed?)
endif
endif

# ---- places ----------------------------------------------------------------------------------

PREFIX     ?= /usr/local
DESTDIR    ?=
BINDIR     ?= $(PREFIX)/bin
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
PKGCONFIGDIR ?= $(LIBDIR)/pkgconfig
MANDIR     ?= $(PREFIX)/share/man
LUA_LMOD   ?= $(PREFIX)/share/lua/$(LUA_ABI)
LUA_CMOD   ?= $(PREFIX)/lib/lua/$(LUA_ABI)

# TARGET=name: of another system, see spec/tools/cross.sh; in directories of its own.
SUFFIX   := $(FAULTS_SUFFIX)$(SAN_SUFFIX)$(TARGET:%=-%)
CORE_DIR := build/core$(SUFFIX)
LUA_DIR  := build/$(LUA_ID)$(SUFFIX)
CORE_LIB := $(CORE_DIR)/libjdb.a
MODULE   := $(LUA_DIR)/jdbfs/core.$(MODULE_SUFFIX)
CORE_OBJ := $(patsubst %,$(CORE_DIR)/%.o,$(CORE_SRC) $(PLATFORM_SRC))
STANDIN_OBJ := $(patsubst %,$(CORE_DIR)/standin/%.o,$(STANDIN_SRC))
LUA_OBJ  := $(patsubst %,$(LUA_DIR)/%.o,$(LUA_SRC))
COVER_OBJ := $(if $(COVER_CFLAGS),$(LUA_DIR)/cover.o)
C_TESTS  := $(patsubst spec/c/%.c,$(CORE_DIR)/spec/%,$(wildcard spec/c/*.c))
ifeq ($(STANDIN),macos)
C_TESTS  := $(filter %_conformance_test %/wake_test %/durability_test,$(C_TESTS)) \
            $(CORE_DIR)/spec/macos/macos_test
endif

V ?= 0
ifeq ($(V),0)
Q := @
note = @printf '  %-3s %s\n' '$(1)' '$(2)'
endif

# ---- build -----------------------------------------------------------------------------------

.PHONY: all core all-luas c-tests test run run-built deps install uninstall install-core \
        uninstall-core tidy clean help print-sources print-test-sources FORCE
.DELETE_ON_ERROR:
.SUFFIXES:

all: $(MODULE)

core: $(CORE_LIB)

all-luas:
	@luas=$$(bash spec/tools/lua.sh list); \
	if [ -z "$$luas" ]; then $(MAKE) --no-print-directory all; exit; fi; \
	for lua in $$luas; do \
	    $(MAKE) --no-print-directory all LUA=$$lua LUA_INCDIR= || exit; \
	done

$(MODULE): $(LUA_OBJ) $(COVER_OBJ) $(CORE_LIB)
	@mkdir -p $(@D)
	$(call note,LD,$@)
	$(Q)$(CC) $(MODULE_LDFLAGS) -o $@ $(LUA_OBJ) $(COVER_OBJ) $(CORE_LIB) $(ALL_LDFLAGS) \
	    $(LUA_LIB) $(PLATFORM_LIBS)

$(CORE_LIB): $(CORE_OBJ) $(STANDIN_OBJ)
	$(call note,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(CORE_OBJ): $(CORE_DIR)/%.o: csrc/%.c $(CORE_DIR)/flags | $(CORE_DIR)/checked
	$(call note,CC,$@)
	$(Q)$(CC) $(CORE_CFLAGS) -MMD -MP -c -o $@ $<

$(LUA_OBJ): $(LUA_DIR)/%.o: csrc/%.c $(LUA_DIR)/flags | $(CORE_DIR)/checked $(LUA_DIR)/checked
	$(call note,CC,$@)
	$(Q)$(CC) $(LUA_CFLAGS) -MMD -MP -c -o $@ $<

$(COVER_OBJ): spec/tools/cover.c $(LUA_DIR)/flags
	$(call note,CC,$@)
	$(Q)$(CC) $(LUA_CFLAGS) -c -o $@ $<

$(STANDIN_OBJ): $(CORE_DIR)/standin/%.o: spec/c/macos/%.c $(CORE_DIR)/flags | $(CORE_DIR)/checked
	@mkdir -p $(@D)
	$(call note,CC,$@)
	$(Q)$(CC) $(CORE_CFLAGS) -Icsrc -MMD -MP -c -o $@ $<

c-tests: $(C_TESTS) $(if $(filter be_uring,$(PLATFORM_SRC)),$(CORE_DIR)/uring-probe)

$(CORE_DIR)/spec/%: spec/c/%.c $(CORE_LIB)
	@mkdir -p $(@D)
	$(call note,CC,$@)
	$(Q)$(CC) $(CORE_CFLAGS) -Icsrc -MMD -MP -MF $@.d -o $@ $< $(CORE_LIB) $(ALL_LDFLAGS) \
	    $(PLATFORM_LIBS)

$(CORE_DIR)/uring-probe: spec/tools/uring-probe.c $(CORE_DIR)/flags | $(CORE_DIR)/checked
	$(Q)$(CC) $(CORE_CFLAGS) -o $@ $< $(ALL_LDFLAGS) $(PLATFORM_LIBS)

# Objects depend on the flags they were made with: another CFLAGS rebuilds them.
$(CORE_DIR)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(CC) $(CORE_CFLAGS) $(ALL_LDFLAGS)' | cmp -s - $@ || \
	    printf '%s\n' '$(CC) $(CORE_CFLAGS) $(ALL_LDFLAGS)' > $@

ifneq ($(LUA_DIR),$(CORE_DIR))
$(LUA_DIR)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(CC) $(LUA_CFLAGS) $(ALL_LDFLAGS)' | cmp -s - $@ || \
	    printf '%s\n' '$(CC) $(LUA_CFLAGS) $(ALL_LDFLAGS)' > $@

$(LUA_DIR)/checked: $(LUA_DIR)/flags
	$(if $(LUA_ERROR),$(error $(LUA_ERROR)))
	@touch $@
endif

# What is missing is one line, not a page of compiler output.
check_build = $(shell PLATFORM=$(PLATFORM) CC='$(CC)' URING_CFLAGS='$(URING_CFLAGS)' \
                URING_LIBS='$(URING_LIBS)' bash spec/tools/check-build.sh)
stop_with = $(if $(1),$(error $(1)))
$(CORE_DIR)/checked: $(CORE_DIR)/flags
	$(if $(PLATFORM_SRC),,$(error jdbfs: no source list for $(PLATFORM) yet))
	$(call stop_with,$(check_build))
	@touch $@

-include $(wildcard $(CORE_DIR)/*.d $(CORE_DIR)/*/*.d $(LUA_DIR)/*.d)

# Not part of any rock: a module for one build of nginx. NGINX_SOURCE: its source tree, or that of
# Debian's nginx-dev, after ./configure with the arguments that `nginx -V` tells. LUA=luajit.
.PHONY: nginx-module
nginx-module: build/nginx$(SAN_SUFFIX)/jdbfs/nginx_event.so

NGINX_INC = $(addprefix -isystem $(NGINX_SOURCE)/,src/core src/event src/event/modules src/os/unix \
            objs)
build/nginx$(SAN_SUFFIX)/jdbfs/nginx_event.so: csrc/host_nginx.c
	$(if $(wildcard $(NGINX_SOURCE)/objs/ngx_auto_config.h),,$(error jdbfs: NGINX_SOURCE=DIRECTORY \
	    expected, an nginx source tree after ./configure))
	@mkdir -p $(@D)
	$(call note,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(CPPFLAGS) $(filter-out -std=% -fvisibility=%,$(MUST_CFLAGS)) \
	    $(addprefix -isystem ,$(LUA_INC)) $(NGINX_INC) -shared -o $@ $< $(ALL_LDFLAGS)

# ---- use -------------------------------------------------------------------------------------

deps:
	@bash spec/tools/deps.sh ci '$(LUA)'

# Installing may change which Lua is found, so the rest is a make of its own.
run:
	@CC='$(CC)' LUA_INCDIR='$(LUA_INCDIR)' bash spec/tools/deps.sh run '$(LUA)'
	@$(MAKE) --no-print-directory run-built

IN_TREE = env -u LUA_PATH_5_2 -u LUA_PATH_5_3 -u LUA_PATH_5_4 -u LUA_PATH_5_5 -u LUA_CPATH_5_2 \
          -u LUA_CPATH_5_3 -u LUA_CPATH_5_4 -u LUA_CPATH_5_5 \
          LUA_PATH="$$PWD/lua/?.lua;$$PWD/lua/?/init.lua;;" LUA_CPATH="$$PWD/$(LUA_DIR)/?.so;;"
run-built: $(MODULE)
	@$(IN_TREE) $(LUA_EXE) lua/bin/jdbfs run \
	    $(or $(ARGS),--size 256m --time 5s --warmup 0.5s)

# T="spec/03-file_spec.lua ..." LUAS="lua5.4 luajit" BACKENDS="threads" FS="own ext4" SAN=address
test:
	@CC='$(CC)' bash spec/tools/deps.sh test || true
	@CC='$(CC)' MAKE='$(MAKE)' T='$(T)' LUAS='$(or $(LUAS),$(LUA))' BACKENDS='$(BACKENDS)' FS='$(FS)' \
	    SAN='$(SAN)' bash spec/tools/test.sh

# Measured against rivals in the same run: ARGS="--short", "--readme", parts; see the scripts.
.PHONY: bench bench-counts bench-hosts
bench:
	@CC='$(CC)' MAKE='$(MAKE)' bash spec/bench/bench.sh $(ARGS)

bench-hosts:
	@MAKE='$(MAKE)' bash spec/bench/hosts.sh $(ARGS)

# Fails when an operation costs more than it did; no clock is looked at. ARGS=--record renews.
bench-counts:
	@CC='$(CC)' MAKE='$(MAKE)' bash spec/bench/counts.sh $(ARGS)

# The long ways to look for mistakes; SECONDS and steps come from the environment, see each script.
.PHONY: coverage analyze fuzz valgrind soak sequences torture
coverage:
	@CC='$(CC)' bash spec/tools/deps.sh test || true
	@CC='$(CC)' MAKE='$(MAKE)' T='$(T)' LUAS='$(LUAS)' bash spec/tools/coverage.sh $(ARGS)

analyze:
	@bash spec/tools/analyze.sh

fuzz:
	@bash spec/tools/fuzz.sh $(ARGS)

valgrind:
	@MAKE='$(MAKE)' bash spec/tools/valgrind.sh $(ARGS)

soak:
	@MAKE='$(MAKE)' SAN='$(SAN)' BACKENDS='$(BACKENDS)' bash spec/tools/soak.sh $(ARGS)

# Random sequences of calls: ARGS="1000000 lua5.4 luajit"
sequences:
	@MAKE='$(MAKE)' SAN='$(SAN)' bash spec/tools/sequences.sh $(ARGS)

# CUTS=10000 WORKLOADS="..." MODELS="strict ext4" SEED=: see the script.
.PHONY: powercut
powercut:
	@CC='$(CC)' MAKE='$(MAKE)' LUA='$(LUA)' bash spec/tools/powercut.sh

# Other systems. The macOS files on Linux over stand-ins, on backend kqueue: C tests and those specs
# that are not about Linux. Then what a cross compiler makes of them, which is not run.
STANDIN_TESTS := $(addprefix spec/c/,io_conformance_test.c life_conformance_test.c \
    names_conformance_test.c wake_test.c durability_test.c macos/macos_test.c) \
    $(wildcard $(addprefix spec/,20* 21* 22* 24* 25* 26* 27* 28* 29* 30* 31* 33* 50* 51* 53* 71*))
.PHONY: check-macos check-macos-build check-freebsd-build
check-macos:
	@CC='$(CC)' MAKE='$(MAKE)' STANDIN=macos T='$(or $(T),$(STANDIN_TESTS))' SAN='$(SAN)' \
	    LUAS='$(or $(LUAS),lua5.4)' BACKENDS='$(or $(BACKENDS),kqueue)' FS=own \
	    bash spec/tools/test.sh

check-macos-build:
	@CC='$(CC)' MAKE='$(MAKE)' bash spec/tools/cross.sh macos

check-freebsd-build:
	@CC='$(CC)' MAKE='$(MAKE)' bash spec/tools/cross.sh freebsd

# Builds for Windows and runs the specs in wine. By hand: make PLATFORM=Windows TARGET=windows
# CC=x86_64-w64-mingw32-gcc LUA_ID=5.4 LUA_INC=directory-of-lua.h LUA_LIB=lua54.dll URING_CFLAGS=
.PHONY: check-windows
check-windows:
	@CC='$(CC)' MAKE='$(MAKE)' T='$(T)' LUAS='$(LUAS)' BACKENDS='$(BACKENDS)' \
	    bash spec/tools/check-windows.sh

torture:
	@MAKE='$(MAKE)' bash spec/tools/torture.sh $(ARGS)

tidy:
	@LUA_EXE='$(LUA_EXE)' MAKE='$(MAKE)' bash spec/tools/tidy.sh

print-sources: # for tidy
	@echo $(PLATFORM) $(patsubst %,csrc/%.c,$(CORE_SRC) $(PLATFORM_SRC) $(LUA_SRC)) $(LUA_MODULES)

print-test-sources:
	@echo $(patsubst %,csrc/%.c,$(FAULTS_SRC) $(FAULTS_LUA_SRC) host_nginx)

# uninstall removes these files, and the directories of ours that are empty then.
MAN_PAGES := $(if $(filter-out -,$(LUA_EXE)),build/doc/jdbfs.1 build/doc/jdbfs.3)
LUA_DIRS  := $(sort $(patsubst lua/%/,%,$(dir $(LUA_MODULES))))
put = mkdir -p "$$(dirname '$(DESTDIR)$(3)')" && install -m $(1) $(2) '$(DESTDIR)$(3)'

# The command finds its modules where no Lua looks by itself, as below $HOME.
install: $(MODULE) $(MAN_PAGES)
	@echo "installing into $(DESTDIR)$(PREFIX)"
	$(Q)for dir in $(LUA_DIRS); do mkdir -p '$(DESTDIR)$(LUA_LMOD)'/$$dir || exit; done
	$(Q)for file in $(LUA_MODULES:lua/%=%); do \
	    install -m 644 lua/$$file '$(DESTDIR)$(LUA_LMOD)'/$$file || exit; \
	done
	$(Q)$(call put,755,$(MODULE),$(LUA_CMOD)/jdbfs/core.so)
	$(Q){ printf '%s\n' '#!$(LUA_EXE)' \
	    'package.path = "$(LUA_LMOD)/?.lua;$(LUA_LMOD)/?/init.lua;" .. package.path' \
	    'package.cpath = "$(LUA_CMOD)/?.so;" .. package.cpath'; \
	    tail -n +2 lua/bin/jdbfs; } > $(LUA_DIR)/command
	$(Q)$(call put,755,$(LUA_DIR)/command,$(BINDIR)/jdbfs)
ifneq ($(MAN_PAGES),)
	$(Q)$(call put,644,build/doc/jdbfs.1,$(MANDIR)/man1/jdbfs.1)
	$(Q)$(call put,644,build/doc/jdbfs.3,$(MANDIR)/man3/jdbfs.3)
endif

uninstall:
	$(Q)for file in $(LUA_MODULES:lua/%=%); do rm -f '$(DESTDIR)$(LUA_LMOD)'/$$file; done
	$(Q)for dir in $(LUA_DIRS); do echo $$dir; done | sort -r | while read -r dir; do \
	    rmdir '$(DESTDIR)$(LUA_LMOD)'/$$dir 2>/dev/null || :; \
	done
	$(Q)rm -f '$(DESTDIR)$(LUA_CMOD)/jdbfs/core.so' '$(DESTDIR)$(BINDIR)/jdbfs' \
	    '$(DESTDIR)$(MANDIR)/man1/jdbfs.1' '$(DESTDIR)$(MANDIR)/man3/jdbfs.3'
	$(Q)rmdir '$(DESTDIR)$(LUA_CMOD)/jdbfs' 2>/dev/null || :

# The core alone, for C programs: cc program.c $(pkg-config --cflags --libs jdb)
install-core: $(CORE_LIB)
	@echo "installing into $(DESTDIR)$(PREFIX)"
	$(Q)printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$(LIBDIR)' 'includedir=$(INCLUDEDIR)' '' \
	    'Name: jdb' 'Description: Asynchronous direct I/O' 'Version: $(VERSION)' \
	    'Cflags: -I$${includedir}' 'Libs: -L$${libdir} -ljdb $(strip $(PLATFORM_LIBS))' \
	    > $(CORE_DIR)/jdb.pc
	$(Q)$(call put,644,csrc/jdb.h,$(INCLUDEDIR)/jdb.h)
	$(Q)$(call put,644,$(CORE_LIB),$(LIBDIR)/libjdb.a)
	$(Q)$(call put,644,$(CORE_DIR)/jdb.pc,$(PKGCONFIGDIR)/jdb.pc)

uninstall-core:
	$(Q)rm -f '$(DESTDIR)$(INCLUDEDIR)/jdb.h' '$(DESTDIR)$(LIBDIR)/libjdb.a' \
	    '$(DESTDIR)$(PKGCONFIGDIR)/jdb.pc'

# ---- documents ---------------------------------------------------------------------------------

# All from lua/jdbfs/meta.lua and the command's own help.
REFERENCE := $(IN_TREE) $(LUA_EXE) spec/tools/reference.lua
.PHONY: docs man
man: $(MAN_PAGES)

$(MAN_PAGES): build/doc/jdbfs.%: spec/tools/reference.lua csrc/jdb.h $(LUA_MODULES) $(MODULE)
	@mkdir -p $(@D)
	$(call note,MAN,$@)
	$(Q)$(REFERENCE) man$* $(VERSION) > $@

docs: man
	@if ! command -v ldoc >/dev/null; then \
	    bash -c '. spec/tools/packages.sh; echo "no HTML: ldoc is missing; $$(install_hint ldoc)"'; \
	else \
	    $(REFERENCE) ldoc $(VERSION) > build/doc/jdbfs.lua && rm -rf build/doc/html && \
	    ldoc -q -f plain -p jdbfs -t 'jdbfs $(VERSION)' -d build/doc/html build/doc/jdbfs.lua && \
	    echo build/doc/html/index.html; \
	fi

# ---- releases ----------------------------------------------------------------------------------

# The release's rockspec is the tree's with a version: `make rockspec` after a change of that.
.PHONY: rockspec dist print-rockspec print-version
rockspec:
	@$(MAKE) -s --no-print-directory print-rockspec > $(RELEASE_ROCKSPEC)

print-rockspec:
	@sed -e 's|^version = .*|version = "$(VERSION)-1"|' \
	    -e '/^  url = /{p; s|.*|  tag = "v$(VERSION)",|;}' $(ROCKSPEC)

print-version:
	@echo $(VERSION)

dist:
	@mkdir -p build
	git archive --prefix=jdbfs-$(VERSION)/ -o build/jdbfs-$(VERSION).tar.gz HEAD

# What clangd and other editors want to know of each C file.
.PHONY: compile_commands
compile_commands:
	@mkdir -p build
	@$(MAKE) --no-print-directory -B -n V=1 core all | sed -n -e 's/[\\"]/\\&/g' \
	    -e 's|^.* -c -o [^ ]* \(csrc/.*\)|{"file": "\1", "command": "&", @}|' \
	    -e 's|@}|"directory": "$(CURDIR)"}|p' | \
	    sed -e '1s/^/[/' -e '$$!s/$$/,/' -e '$$s/$$/]/' > build/compile_commands.json
	@echo 'build/compile_commands.json'

clean:
	rm -rf build

help:
	@echo 'make             build the module for one Lua (LUA=lua5.4, luajit, /path/to/lua)'
	@echo 'make all-luas    build it for every Lua installed'
	@echo 'make run         install what is missing, build, run "jdbfs run" (ARGS="...")'
	@echo 'make test        everything; T=spec/x_spec.lua LUAS="lua5.4" BACKENDS="threads" FS="own"'
	@echo 'make tidy        include rules, formatting, luacheck, rockspec'
	@echo 'make coverage    lines and refusals that no test reaches; make analyze: static analyzers'
	@echo 'make torture     hours of fuzzing, soak, ...; alone: fuzz, soak, sequences, valgrind'
	@echo 'make bench       against C loops, fio, pread, luv; ARGS="--short --readme reads durable"'
	@echo 'make bench-hosts in event loops of others: nginx, luv, cqueues, copas, Tarantool'
	@echo 'make bench-counts  what an operation costs, in counts; ARGS=--record'
	@echo 'make powercut    cuts the power below ext4, XFS and btrfs; CUTS=1000 (root, FUSE)'
	@echo 'make docs        the reference as man pages and, with ldoc, as HTML, into build/doc'
	@echo 'make check-macos what macOS runs, on Linux; check-macos-build, check-freebsd-build: compile'
	@echo 'make check-windows   builds for Windows, runs the specs in wine'
	@echo 'make install     PREFIX=/usr/local DESTDIR= LUA=; also uninstall'
	@echo 'make install-core  jdb.h, libjdb.a and jdb.pc for C programs; also uninstall-core'
	@echo 'make rockspec    the rockspec of the release, from that of the tree; make dist: its source'
	@echo 'make compile_commands  build/compile_commands.json, for editors'
	@echo 'make deps        install compilers, Luas and tools for all of these'
	@echo 'make clean       remove build/'
	@echo 'SAN=address, undefined or thread: a sanitizer build in directories of its own'
	@echo 'FAULTS=1: a build that fails on purpose, for the specs, in directories of its own'
	@echo 'CFLAGS, LDFLAGS, LUA_INCDIR, V=1: as usual'
