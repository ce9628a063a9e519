# What a fresh Debian 12 or 13 with git and rustup lacks, installed by name; nothing is done when all of it is there.
#
# Uses apt-get, with sudo when not root. Rust's parts are those that rust-toolchain.toml names; rustup brings them.
# Does not touch apt's sources: what must come from Debian 12's archive on any machine goes through ci/lib/apt-private.
# shellcheck shell=bash

# command or file that proves it -> package
packages=(
    qemu-system-aarch64:qemu-system-arm
    aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu /usr/aarch64-linux-gnu/include/assert.h:libc6-dev-arm64-cross
    arm-linux-gnueabihf-gcc:gcc-arm-linux-gnueabihf /usr/arm-linux-gnueabihf/lib/libc.a:libc6-dev-armhf-cross
    cc:gcc c++:g++ make:make bison:bison flex:flex bc:bc xxd:xxd
    /usr/include/openssl/ssl.h:libssl-dev /usr/include/gnutls/gnutls.h:libgnutls28-dev
    ip:iproute2 mcopy:mtools sfdisk:fdisk mkfs.ext4:e2fsprogs losetup:mount unsquashfs:squashfs-tools
    cpio:cpio fw_printenv:libubootenv-tool dpkg-source:dpkg-dev /usr/share/doc/busybox-static:busybox-static
    grub-editenv:grub-common grub-emu:grub-emu
    python3:python3 strace:strace crun:crun chromium:chromium git:git curl:curl /usr/bin/time:time
    /usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring
)

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

install_packages() {
    local entry want=()
    for entry in "${packages[@]}"; do
        case $entry in
            /*) [ -e "${entry%%:*}" ] || want+=("${entry#*:}") ;;
            *) command -v "${entry%%:*}" >/dev/null || want+=("${entry#*:}") ;;
        esac
    done
    [ ${#want[@]} -gt 0 ] || return 0
    say "installing with apt: ${want[*]}"
    # Not an error by itself: what is cached may do.
    as_root apt-get -qq update || say "apt-get update failed; going on with the lists that are there"
    local options=(-qq -y --no-install-recommends)
    local environment=(env DEBIAN_FRONTEND=noninteractive)
    if ! as_root "${environment[@]}" apt-get "${options[@]}" install "${want[@]}" >/dev/null; then
        # A machine may carry a newer qemu-utils (from backports) than its archive's emulator; the two share a package
        # of common files and have to be of one version, so the distribution's own is taken for all of them.
        local release
        release=$(. /etc/os-release && echo "$VERSION_CODENAME")
        say "a second try, with the qemu of $release itself"
        as_root "${environment[@]}" apt-get "${options[@]}" --allow-downgrades install "${want[@]}" \
            "qemu-system-arm/$release" "qemu-system-common/$release" "qemu-utils/$release" >/dev/null
    fi
}

install_rust() {
    command -v rustup >/dev/null || die "rustup is missing; install it from https://rustup.rs, then run this again"
    # Inside the checkout rustup reads rust-toolchain.toml; naming the channel installs its components and targets too.
    local channel
    channel=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$root/rust-toolchain.toml")
    if ! (cd "$root" && rustup target list --installed 2>/dev/null | grep -qx armv7-unknown-linux-gnueabihf); then
        say "installing with rustup: $channel and the targets of rust-toolchain.toml"
        (cd "$root" && rustup toolchain install "$channel" --profile minimal --no-self-update >&2)
        local target component
        for target in $(sed -n 's/^targets = \[\(.*\)\]/\1/p' "$root/rust-toolchain.toml" | tr -d '",'); do
            rustup target add --toolchain "$channel" "$target" >&2
        done
        for component in $(sed -n 's/^components = \[\(.*\)\]/\1/p' "$root/rust-toolchain.toml" | tr -d '",'); do
            rustup component add --toolchain "$channel" "$component" >&2
        done
    fi
}

install_all() { install_packages; install_rust; }
