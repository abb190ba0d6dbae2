# nginx-auth-pat. `make help` lists what can be built.

BUILD ?= build
# The nginx to build the module against: a source tree with `configure` or `auto/configure`. nginx-dev's `configure`
# omits the distribution's flags, which are in its conf_flags file.
NGINX_SRC ?= /usr/share/nginx/src
NGINX_CONFIGURE_FLAGS ?= --with-compat

PREFIX ?= /usr
MODULES_DIR ?= /usr/lib/nginx/modules
DESTDIR ?=
# What strips installed binaries; `make install STRIP=` leaves their symbols.
STRIP := $(if $(filter undefined default,$(origin STRIP)),$(if $(filter nostrip,$(DEB_BUILD_OPTIONS)),,strip),$(STRIP))

CXX ?= g++
OPTIMISE ?= -O2 -g
WARNINGS := -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror
CXXFLAGS := -std=c++20 $(OPTIMISE) $(WARNINGS) -Isrc -MMD -MP
LDLIBS := -llmdb -lcrypto -lz

# nginx's configure splits its arguments at spaces, and so does make.
ifneq ($(words [$(CURDIR)] [$(BUILD)] [$(NGINX_SRC)] [$(DESTDIR)] [$(PREFIX)] [$(MODULES_DIR)]), 6)
$(error no path may have a space in it: "$(CURDIR)", BUILD="$(BUILD)", NGINX_SRC="$(NGINX_SRC)", DESTDIR="$(DESTDIR)", \
    PREFIX="$(PREFIX)", MODULES_DIR="$(MODULES_DIR)")
endif

module_name := ngx_http_auth_pat_module
nginx_tree := $(BUILD)/nginx
server_tree := $(BUILD)/server
failing := $(BUILD)/obj/t/memory/failing.o
comma := ,

core := $(wildcard src/core/*.cpp)
store := $(wildcard src/store/*.cpp)
writer := $(wildcard src/writer/*.cpp)
cli := $(wildcard src/cli/*.cpp src/cli/*/*.cpp)
unit := $(wildcard t/unit/test_*.cpp)
fuzz := $(patsubst t/fuzz/%.cpp,%,$(wildcard t/fuzz/*.cpp))
pat_sync := $(wildcard $(addprefix scripts/pat_sync/,*.py */*.py */*/*.py))

# The same globs as in config.
module_files := $(sort $(wildcard src/core/* src/store/* src/nginx/* src/nginx/page/*))

library_objects := $(patsubst %.cpp,$(BUILD)/obj/%.o,$(core) $(store) $(writer))
cli_objects := $(patsubst %.cpp,$(BUILD)/obj/%.o,$(cli))
unit_programs := $(patsubst t/unit/%.cpp,$(BUILD)/unit/%,$(unit))

# Records the parameters of a build in the target, and leaves the target's time alone if they have not changed. Two makes
# may do so at once.
define remember
@echo '$(subst ','\'',$(1))' >$@.$$$$; if cmp -s $@.$$$$ $@; then rm $@.$$$$; else mv $@.$$$$ $@; fi
endef

.PHONY: all
all: module patctl manuals

.PHONY: FORCE
FORCE:

.PHONY: help
help:
	@echo "make                    build the module (against nginx-dev) and patctl, into $(BUILD)/"
	@echo "make module NGINX_SRC=DIR BUILD=DIR"
	@echo "                        build the module against another nginx source tree;"
	@echo "                        NGINX_CONFIGURE_FLAGS=\"$(NGINX_CONFIGURE_FLAGS)\" are that nginx's own"
	@echo "make patctl             build patctl, and its completion for bash and zsh"
	@echo "make unit               build and run the unit tests"
	@echo "make server             build nginx itself with the module in it, for t/memory"
	@echo "make race               build $(BUILD)/race, which opens a store from many processes at once"
	@echo "make fuzz TIME=60       run each fuzz target for so many seconds; fails on a finding"
	@echo "make faults             build $(BUILD)/faults.so, which t/faults/run preloads"
	@echo "make check              all tests, as scripts/check does"
	@echo "make check SAN=address,undefined"
	@echo "                        the tests of the module and of patctl with gcc's sanitizers"
	@echo "make install DESTDIR=   install the module, patctl, pat-sync, its systemd unit, SQL, alerts, a dashboard and"
	@echo "                        documentation; STRIP= keeps the symbols of binaries"
	@echo "make uninstall DESTDIR= remove what was installed"
	@echo "scripts/package         build packages for Debian"
	@echo "make clean              remove $(BUILD)/"

# --- the module ---

# Replaces the file instead of overwriting it: an nginx that has it loaded would crash.
.PHONY: module
module: $(nginx_tree)/objs/Makefile
	$(MAKE) --no-print-directory -C $(nginx_tree) -f objs/Makefile modules
	@cd $(BUILD) && built=nginx/objs/$(module_name).so && \
	    { cmp -s $$built $(module_name).so || { cp $$built $(module_name).new && mv $(module_name).new $(module_name).so; }; }

# configure writes into its source tree, so it gets a tree of links.
$(nginx_tree)/objs/Makefile: addon := --add-dynamic-module
$(server_tree)/objs/Makefile: addon := --with-cc-opt="$(OPTIMISE) -DNGX_DEBUG_PALLOC=1" \
    --with-ld-opt="$(LDFLAGS) $(abspath $(failing)) \
    $(addprefix -Wl$(comma)--wrap=ngx_slab_,alloc alloc_locked calloc calloc_locked)" --add-module
$(server_tree)/objs/Makefile: | $(failing)

$(nginx_tree)/objs/Makefile $(server_tree)/objs/Makefile: %/objs/Makefile: config config.make \
    $(NGINX_SRC)/src/core/nginx.h $(BUILD)/nginx.from
	rm -rf $*
	mkdir $*
	ln -s $(abspath $(NGINX_SRC))/* $*/
	rm -rf $*/Makefile $*/objs
	cd $* && set -- $(addon)=$(CURDIR) && \
	    if [ -f conf_flags ]; then \
	        bash -c '. ./conf_flags && ./configure "$${NGX_CONF_FLAGS[@]}" "$$@"' configure "$$@"; \
	    else \
	        configure=./configure; [ -f $$configure ] || configure=./auto/configure; \
	        $$configure $(NGINX_CONFIGURE_FLAGS) "$$@"; \
	    fi > configure.log || { cat configure.log; rm -f objs/Makefile; exit 1; }

# nginx itself with the module in it, for the tests of memory: each allocation from a pool is one of malloc's, and each can
# be made to fail.
.PHONY: server
server: $(server_tree)/objs/Makefile $(failing)
	@[ ! $(failing) -nt $(server_tree)/objs/nginx ] || rm -f $(server_tree)/objs/nginx
	$(MAKE) --no-print-directory -C $(server_tree) -f objs/Makefile binary

# Runs before a sanitizer has begun.
$(failing): CXXFLAGS += -fno-sanitize=all -fno-exceptions -fno-rtti -fPIC

# For patctl, which is preloaded with it.
$(BUILD)/failing.so: $(failing)
	$(CXX) -shared -o $@ $<

$(BUILD)/nginx.from: FORCE | $(BUILD)
	$(call remember,$(NGINX_SRC) $(NGINX_CONFIGURE_FLAGS) $(OPTIMISE) $(LDFLAGS) $(module_files))

# --- patctl ---

.PHONY: patctl
patctl: $(BUILD)/patctl $(BUILD)/patctl.bash $(BUILD)/patctl.zsh

$(BUILD)/patctl: $(cli_objects) $(library_objects)
	$(CXX) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lsimdjson -lfmt

$(BUILD)/patctl.bash $(BUILD)/patctl.zsh: $(BUILD)/patctl.%: $(BUILD)/patctl
	$(BUILD)/patctl completion $* > $@

# Parts of the module are compiled with the module's flags.
$(BUILD)/obj/src/core/%.o $(BUILD)/obj/src/store/%.o $(BUILD)/obj/src/writer/%.o: CXXFLAGS += -fno-exceptions -fno-rtti

$(BUILD)/obj/%.o: %.cpp $(BUILD)/compiled.with
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) -c -o $@ $<

$(BUILD)/compiled.with: FORCE | $(BUILD)
	$(call remember,$(CXX) $(OPTIMISE) $(WARNINGS))

# --- manual pages ---

.PHONY: manuals
manuals: $(BUILD)/patctl.1 $(BUILD)/pat-sync.1 $(BUILD)/auth_pat.5

manual = pandoc -s -f markdown-smart -t man --lua-filter scripts/manual.lua -o $@
# Documents that have a title instead of the headings of a manual page.
titled = $(manual) --shift-heading-level-by=-1 -M header=nginx-auth-pat -M footer=nginx-auth-pat

$(BUILD)/patctl.1: docs/patctl.md scripts/manual.lua | $(BUILD)
	$(manual) $<

$(BUILD)/pat-sync.1: docs/pat-sync.md scripts/manual.lua | $(BUILD)
	$(titled) -M page=PAT-SYNC -M section=1 -M name="pat-sync - keep a store of access tokens equal to a source" $<

$(BUILD)/auth_pat.5: docs/directives.md scripts/manual.lua | $(BUILD)
	$(titled) -M page=AUTH_PAT -M section=5 -M name="auth_pat - authorize requests to nginx by access tokens" $<

# --- tests ---

.PHONY: unit
unit: $(unit_programs)
	@set -e; for program in $^; do $$program; done

$(BUILD)/unit/%: $(BUILD)/obj/t/unit/%.o $(library_objects)
	@mkdir -p $(@D)
	$(CXX) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka

# LMDB calls functions of this program instead of those of the C library.
.PHONY: race
race: $(BUILD)/race

$(BUILD)/race: $(BUILD)/obj/t/race/race.o $(library_objects)
	$(CXX) $(LDFLAGS) -rdynamic -o $@ $^ $(LDLIBS)

$(BUILD)/obj/t/unit/%.o $(BUILD)/obj/t/race/%.o: CXXFLAGS += -It/unit

# Targets of libFuzzer, with sanitizers and counters for llvm-cov. `make fuzz-targets` calls make again, with clang.
TIME ?= 60
fuzz_build := $(BUILD)/fuzz
fuzz_sanitizers := address,undefined -fno-sanitize-recover=all
fuzz_counters := -fprofile-instr-generate -fcoverage-mapping

.PHONY: fuzz fuzz-targets
fuzz:
	t/fuzz/run --seconds $(TIME)

fuzz-targets:
	$(MAKE) --no-print-directory BUILD=$(fuzz_build) CXX=clang++ WARNINGS="-Wall -Wextra" \
	    OPTIMISE="-O1 -gline-tables-only -fsanitize=fuzzer-no-link,$(fuzz_sanitizers) $(fuzz_counters)" \
	    LDFLAGS="-fsanitize=fuzzer,$(fuzz_sanitizers) $(fuzz_counters)" \
	    $(fuzz:%=$(fuzz_build)/targets/%)

fuzz_cli_objects := $(patsubst %,$(BUILD)/obj/src/cli/%.o, \
    pat_draft pat_failure pat_json pat_lines pat_owner pat_text pat_time apply/pat_message)

$(BUILD)/targets/%: $(BUILD)/obj/t/fuzz/%.o $(library_objects) $(fuzz_cli_objects)
	@mkdir -p $(@D)
	$(CXX) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lsimdjson -lfmt

$(BUILD)/obj/t/fuzz/%.o: CXXFLAGS += -It/fuzz

# t/faults/run preloads it.
.PHONY: faults
faults: $(BUILD)/faults.so

$(BUILD)/faults.so: t/faults/shim.cpp $(BUILD)/compiled.with
	$(CXX) $(filter-out -MMD -MP,$(CXXFLAGS)) -fPIC -fno-exceptions -shared $(LDFLAGS) -o $@ $<

.PHONY: check
check:
	$(if $(SAN),t/memory/sanitizers $(SAN),scripts/check)

# --- the rest ---

$(BUILD):
	mkdir -p $@

installed_files := $(MODULES_DIR)/$(module_name).so $(addprefix $(PREFIX)/, \
    bin/patctl bin/pat-sync \
    share/bash-completion/completions/patctl share/zsh/vendor-completions/_patctl \
    share/man/man1/patctl.1 share/man/man1/pat-sync.1 share/man/man5/auth_pat.5 \
    lib/systemd/system/pat-sync.service lib/sysusers.d/pat-sync.conf lib/tmpfiles.d/pat-sync.conf)
# Nothing else puts anything there.
installed_folders := $(addprefix $(PREFIX)/, lib/nginx-auth-pat share/nginx-auth-pat share/doc/nginx-auth-pat)

install_binary = install $(if $(STRIP),--strip --strip-program=$(STRIP)) -D

.PHONY: install install-module install-patctl install-pat-sync install-manuals install-doc
install: install-module install-patctl install-pat-sync install-manuals install-doc

install-module: module
	$(install_binary) -m 644 $(BUILD)/$(module_name).so $(DESTDIR)$(MODULES_DIR)/$(module_name).so

install-patctl: patctl
	$(install_binary) -m 755 $(BUILD)/patctl $(DESTDIR)$(PREFIX)/bin/patctl
	install -D -m 644 $(BUILD)/patctl.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/patctl
	install -D -m 644 $(BUILD)/patctl.zsh $(DESTDIR)$(PREFIX)/share/zsh/vendor-completions/_patctl

install-pat-sync:
	install -D -m 755 scripts/pat-sync $(DESTDIR)$(PREFIX)/bin/pat-sync
	@# Files of another version could still be loaded.
	rm -rf $(DESTDIR)$(PREFIX)/lib/nginx-auth-pat/pat_sync
	@set -e; for file in $(patsubst scripts/%,%,$(pat_sync) scripts/pat_sync/VERSION); do \
	    install -D -m 644 scripts/$$file $(DESTDIR)$(PREFIX)/lib/nginx-auth-pat/$$file; \
	done
	install -D -m 644 scripts/systemd/pat-sync.service $(DESTDIR)$(PREFIX)/lib/systemd/system/pat-sync.service
	sed -i 's,/usr/bin/,$(PREFIX)/bin/,; s,/usr/share/,$(PREFIX)/share/,' \
	    $(DESTDIR)$(PREFIX)/lib/systemd/system/pat-sync.service
	install -D -m 644 scripts/systemd/pat-sync.sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/pat-sync.conf
	install -D -m 644 scripts/systemd/pat-sync.tmpfiles.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/pat-sync.conf

install-manuals: manuals
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man1 $(BUILD)/patctl.1 $(BUILD)/pat-sync.1
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man5 $(BUILD)/auth_pat.5

install-doc:
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/nginx-auth-pat/postgres scripts/postgres/*.sql
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/nginx-auth-pat/prometheus \
	    scripts/prometheus/alerts.yml scripts/prometheus/grafana.json
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/nginx-auth-pat README.md
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/nginx-auth-pat/docs docs/*.md
	install -d $(DESTDIR)$(PREFIX)/share/doc/nginx-auth-pat/conf.d
	cp -R conf.d/. $(DESTDIR)$(PREFIX)/share/doc/nginx-auth-pat/conf.d/
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/nginx-auth-pat/containers $(addprefix containers/, \
	    Containerfile compose.yaml kubernetes.yaml nginx.conf)
	@# What the documents link to
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/nginx-auth-pat/t/bench t/bench/README.md
	install -d $(DESTDIR)$(PREFIX)/share/doc/nginx-auth-pat/scripts
	ln -sfn ../../../nginx-auth-pat/prometheus $(DESTDIR)$(PREFIX)/share/doc/nginx-auth-pat/scripts/prometheus

.PHONY: uninstall
uninstall:
	rm -f $(addprefix $(DESTDIR),$(installed_files))
	rm -rf $(addprefix $(DESTDIR),$(installed_folders))

.PHONY: clean
clean:
	rm -rf $(BUILD)

-include $(wildcard $(BUILD)/obj/src/*/*.d $(BUILD)/obj/src/*/*/*.d $(BUILD)/obj/t/*/*.d)
