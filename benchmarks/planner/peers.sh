#!/bin/sh
# Throw-away environments for the peers of `python -m benchmarks.planner`:
#
#     sh benchmarks/planner/peers.sh DIRECTORY [ROCKMATE]
#
# DIRECTORY/plain  checkpoint_schedules as pip installs it, and pyrevolve
# DIRECTORY/numba  checkpoint_schedules with numba
# DIRECTORY/rotor  rotor's C solver, from ROCKMATE, a clone of the public repository topal-team/rockmate
#                  with its history (rotor itself left the tree; its upstream is not on the package index)
set -eu
directory=$1
rockmate=${2:-}
python=${PYTHON:-python3}

mkdir -p "$directory"
"$python" -m venv "$directory/plain"
"$directory/plain/bin/python" -m pip install --quiet checkpoint_schedules==1.0.4 pyrevolve==2.2.8 setuptools
"$python" -m venv "$directory/numba"
"$directory/numba/bin/python" -m pip install --quiet checkpoint_schedules==1.0.4 numba==0.68.0

if [ -n "$rockmate" ]; then
    git -C "$rockmate" archive e7cbbd3 rotor | tar -x -C "$directory"
    cd "$directory/rotor/algorithms"
    ../../plain/bin/python setup.py --quiet build_ext --inplace
fi
