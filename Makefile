# `build`, `lib`, `header` and all that needs them need cargo and rustc; `install` and `install-lib` build what they install. As root
# without cargo on the PATH: `sudo env PATH="$PATH" make install`, or DESTDIR as yourself, and copy.
HOST_TRIPLE := $(shell rustc -vV | sed -n 's/^host: //p')
# Where cargo builds: CARGO_TARGET_DIR, or what its configuration says.
TARGET := $(or $(CARGO_TARGET_DIR),$(shell cargo metadata --format-version 1 --no-deps 2>/dev/null | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'),target)
BINARY := $(TARGET)/$(HOST_TRIPLE)/release/sysbox-runc
PREFIX ?= /usr/local
DESTDIR ?=
TREES := busybox docker-bookworm docker-trixie docker-forky docker-tools systemd

# put MODE,FILE,PLACE: in one step, so that who uses it meanwhile has the old one or the new.
put = install -D -m $(1) $(2) $(3).$$$$ && mv -f $(3).$$$$ $(3) || { rm -f $(3).$$$$; false; }

.DEFAULT_GOAL := all
.PHONY: all build lib header install-lib demo test test-vm bench lint fmt install trees check-deps clean

all: build

# One static program: it runs on any Linux, and in a mount namespace that has no libraries.
# --target, or the flag would reach procedural macros too, which must be shared objects.
build:
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --target $(HOST_TRIPLE) -p sysbox-runc

# The C library, for programs that embed it: shared and static, with the stage program inside.
# Two steps: what it carries, then it. Both are of the same sources, or they would refuse each other.
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
SOVERSION := $(basename $(VERSION))
LIB_PROFILE ?= release
STAGE_PROFILE ?= stage
LIB_FEATURES ?=
STAGE_ENV ?=
LIB ?= $(TARGET)/ffi
# cargo calls the directory of the profile dev by another name.
profile_dir = $(patsubst dev,debug,$(1))
STAGE := $(abspath $(TARGET))/$(HOST_TRIPLE)/$(call profile_dir,$(STAGE_PROFILE))/sysbox-stage

lib:
	RUSTFLAGS="-C target-feature=+crt-static" $(STAGE_ENV) cargo build --profile $(STAGE_PROFILE) --target $(HOST_TRIPLE) -p sysbox-core --bin sysbox-stage
	SYSBOX_STAGE=$(STAGE) cargo build --profile $(LIB_PROFILE) -p sysbox-ffi $(if $(LIB_FEATURES),--features $(LIB_FEATURES))
	install -d $(LIB)
	$(call put,0644,$(TARGET)/$(call profile_dir,$(LIB_PROFILE))/libsysbox.so,$(LIB)/libsysbox.so.$(VERSION))
	ln -sf libsysbox.so.$(VERSION) $(LIB)/libsysbox.so.$(SOVERSION)
	ln -sf libsysbox.so.$(SOVERSION) $(LIB)/libsysbox.so
	$(call put,0644,$(TARGET)/$(call profile_dir,$(LIB_PROFILE))/libsysbox.a,$(LIB)/libsysbox.a)

# include/sysbox.h is checked in; this makes it anew.
header:
	hack/header.sh

# What the archive needs besides, as rustc says; without libgcc, which each compiler adds in its own way.
STATIC_LIBS := -lutil -lrt -lpthread -lm -ldl
LIBDIR ?= $(PREFIX)/lib
LDCONFIG ?= ldconfig

install-lib: lib
	$(call put,0755,$(LIB)/libsysbox.so.$(VERSION),$(DESTDIR)$(LIBDIR)/libsysbox.so.$(VERSION))
	ln -sf libsysbox.so.$(VERSION) $(DESTDIR)$(LIBDIR)/libsysbox.so.$(SOVERSION)
	ln -sf libsysbox.so.$(SOVERSION) $(DESTDIR)$(LIBDIR)/libsysbox.so
	$(call put,0644,$(LIB)/libsysbox.a,$(DESTDIR)$(LIBDIR)/libsysbox.a)
	$(call put,0644,include/sysbox.h,$(DESTDIR)$(PREFIX)/include/sysbox.h)
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@VERSION@|$(VERSION)|' -e 's|@STATIC_LIBS@|$(STATIC_LIBS)|' \
	  sysbox-ffi/sysbox.pc.in >$(LIB)/sysbox.pc
	$(call put,0644,$(LIB)/sysbox.pc,$(DESTDIR)$(LIBDIR)/pkgconfig/sysbox.pc)
# The loader finds it only then, where it looks in LIBDIR at all (ld.so.conf(5)). Who packages it has this done by the package manager.
ifeq ($(DESTDIR),)
	PATH="$$PATH:/sbin:/usr/sbin" $(LDCONFIG) || echo "ldconfig failed: run it as root, or programs may not find the library" >&2
endif

# Docker inside a system container, from nothing, in one command.
demo: build
	SYSBOX_RUNC=$(BINARY) hack/demo.sh

test:
	hack/test.sh

# The main uses on other kernels, in virtual machines, one after the other: all of them, whichever fails.
test-vm: build
	status=0; for on in "--unified" "--hybrid" "--kernel trixie"; do \
	  SYSBOX_RUNC=$(BINARY) hack/vm-test.sh $$on || status=1; \
	done; for on in "--unified" "--hybrid"; do \
	  SYSBOX_RUNC=$(BINARY) hack/vm-systemd-test.sh $$on || status=1; \
	done; exit $$status

bench: build
	SYSBOX_RUNC=$(BINARY) hack/bench.sh $(SECTIONS)

lint:
	hack/lint.sh

fmt:
	cargo fmt --all

install: build install-lib
	$(call put,0755,$(BINARY),$(DESTDIR)$(PREFIX)/bin/sysbox-runc)

# The root file systems that tests, demo and benchmark share.
trees:
	for kind in $(TREES); do hack/rootfs.sh $$kind || exit $$?; done

# Says what is missing; installs nothing.
check-deps:
	SYSBOX_NO_INSTALL=1 hack/deps.sh

clean:
	cargo clean
