#!/usr/bin/env bash
# Installs the programs of Slurm that the tests here start, if they are missing: Debian's packages.
set -euo pipefail
programs=(munged slurmctld slurmd sbatch srun scontrol squeue scancel)
packages=(slurmctld slurmd slurm-client munge)

missing() {
    local program
    for program in "${programs[@]}"; do
        PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$program" >/dev/null || echo "$program"
    done
}

fail() {
    echo "test-slurm needs $(missing | paste -sd ' '), which are in Debian's and Ubuntu's packages" \
        "${packages[*]}: $1." >&2
    exit 1
}

[[ -z $(missing) ]] && exit 0
command -v apt-get >/dev/null || fail "install what holds them here, as there is no apt-get"
root=(env DEBIAN_FRONTEND=noninteractive)
if [[ $(id -u) != 0 ]]; then
    sudo -n true 2>/dev/null || fail "ask an administrator to install them, or run as root"
    root=(sudo -n "${root[@]}")
fi
install=("${root[@]}" apt-get install -qq -y --no-install-recommends "${packages[@]}")
"${install[@]}" || { "${root[@]}" apt-get update -qq && "${install[@]}"; } || fail "apt-get failed"
[[ -z $(missing) ]] || fail "apt-get installed them, but not all programs are there"
