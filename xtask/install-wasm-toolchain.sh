#!/usr/bin/env bash
# install-wasm-toolchain.sh [TARGET...]   (default: wasm32-unknown-unknown wasm32v1-none wasm32-wasip1)
#
# WebAssembly targets for Debian 12 and later where `rustup target add` cannot reach its server: installs Debian's own Rust
# (packages rustc-web, cargo-web, rust-web-src, rust-web-llvm), builds the standard library of each TARGET from Debian's source
# and places it where that rustc looks for it. Afterwards, with rustup:
#
#   rustup run debian-web cargo build --target TARGET
#
# Run as root. Repeatable: a target is built again only when Debian's rustc has changed.
set -euo pipefail

targets=("$@")
[ $# -gt 0 ] || targets=(wasm32-unknown-unknown wasm32v1-none wasm32-wasip1)
export DEBIAN_FRONTEND=noninteractive
apt_get() { apt-get -qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120 "$@"; }

complete() { [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] && [ -d /usr/lib/rustlib/src/rust/library ] && [ -x /usr/bin/rust-lld ]; }
if ! complete; then
  apt_get update
  apt_get install -y --no-install-recommends rustc-web cargo-web rust-web-src rust-web-llvm >/dev/null
  # /usr/bin/rust-lld is a link to an lld-NN that no package depends on: dangling until that one is installed.
  apt_get install -y --no-install-recommends "$(basename "$(readlink /usr/bin/rust-lld)")" >/dev/null
fi
if command -v rustup >/dev/null && ! rustup toolchain list | grep -q '^debian-web'; then
  rustup toolchain link debian-web /usr
fi

# What cargo and rustup said about the toolchain that called us must not reach Debian's.
unset RUSTUP_TOOLCHAIN RUSTC RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER CARGO CARGO_ENCODED_RUSTFLAGS CARGO_TARGET_DIR CARGO_BUILD_TARGET
sysroot=$(/usr/bin/rustc --print sysroot)
version=$(/usr/bin/rustc -vV | sha256sum | cut -c1-16)

# c_library FOLDER: puts the C library of WASI and its start files into FOLDER, where rustup's own targets have them. Debian 12 has a
# library that lacks what std refers to, so it is fetched from the backports of Debian 13 and unpacked; it depends on nothing, and
# the sources of the system's packages stay as they are.
c_library() {
  work=$(mktemp -d)
  mkdir -p "$work"/{parts,lists/partial,cache/archives/partial}
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(SUITE) $(CODENAME)' 'Created-By: Packages' | awk '$3 ~ /^(bookworm|trixie)$/ {print $1; exit}')
  printf 'Types: deb\nURIs: %s\nSuites: trixie-backports\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
    "${mirror:-http://deb.debian.org/debian}" >"$work/parts/backports.sources"
  backports=(-o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$work/parts" -o Dir::State::Lists="$work/lists"
    -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root)
  apt_get "${backports[@]}" update
  (cd "$work" && apt_get "${backports[@]}" download wasi-libc && dpkg-deb -x wasi-libc_*.deb unpacked)
  mkdir -p "$1"
  cp "$work/unpacked/usr/lib/wasm32-wasip1"/{crt1-command.o,crt1-reactor.o,libc.a} "$1/"
  rm -rf "$work"
}

for target in "${targets[@]}"; do
  home=$sysroot/lib/rustlib/$target
  if [ "$(cat "$home/.built-by" 2>/dev/null)" = "$version" ]; then
    echo "$target: up to date"
    continue
  fi
  case $target in
    wasm32v1-none) crates=core,alloc ;;                         # has no std at all
    wasm32-unknown-unknown | wasm32-wasip1) crates=std,panic_abort,test ;;      # test: for cargo test --target
    *) echo "install-wasm-toolchain.sh: no recipe for the target $target" >&2; exit 2 ;;
  esac

  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  mkdir "$work/src"
  echo '#![no_std]' >"$work/src/lib.rs"
  printf '[package]\nname = "dummy_for_std"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n[profile.release]\npanic = "abort"\n' \
    >"$work/Cargo.toml"
  # std's own dependencies come from Debian's vendored copies, so no registry is asked. RUSTC_BOOTSTRAP allows -Z on this stable rustc.
  vendored=(--offline
    --config 'source.crates-io.replace-with="deb"'
    --config "source.deb.directory=\"$sysroot/lib/rustlib/src/rust/library/vendor\"")
  ( cd "$work"
    RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Cembed-bitcode=yes \
      /usr/bin/cargo build -q --release -Zbuild-std="$crates" --target "$target" --target-dir "$work/target" "${vendored[@]}" )

  rm -rf "$home/lib"
  mkdir -p "$home/lib"
  find "$work/target/$target/release/deps" -name '*.rlib' ! -name 'libdummy_for_std*' -exec cp {} "$home/lib/" \;
  rm -rf "$work"
  if [ "$target" = wasm32-wasip1 ]; then c_library "$home/lib/self-contained"; fi
  trap - EXIT
  echo "$version" >"$home/.built-by"
  echo "$target: installed in $home"
done
