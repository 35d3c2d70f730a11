HOST_TRIPLE := $(shell rustc -vV | sed -n 's/^host: //p')
BINARY := target/$(HOST_TRIPLE)/release/sysbox-runc
PREFIX ?= /usr/local
DESTDIR ?=
TREES := busybox docker-bookworm docker-trixie docker-tools systemd

.DEFAULT_GOAL := all
.PHONY: all build demo test test-vm bench lint fmt install trees check-deps clean

all: build

# One static program: it runs on any Linux, and in a mount namespace that has no libraries.
# --target, or the flag would reach procedural macros too, which must be shared objects.
build:
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --target $(HOST_TRIPLE) -p sysbox-runc

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

install: build
	install -D -m 0755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/sysbox-runc

# The root file systems that tests, demo and benchmark share.
trees:
	for kind in $(TREES); do hack/rootfs.sh $$kind || exit $$?; done

# Says what is missing; installs nothing.
check-deps:
	SYSBOX_NO_INSTALL=1 hack/deps.sh

clean:
	cargo clean
