#!/bin/sh
# Runs a command in a network and a process table of its own, where only loopback and one private address
# exist: clusters that are started in it disturb nobody, and die with it.
set -eu
exec unshare --net --pid --fork --kill-child --mount-proc sh -euc '
ip link set lo up
ip link add tightfit0 type veth peer name tightfit1   # resolvers of Slurm want an address beside loopback
ip address add 10.99.0.1/24 dev tightfit0
ip link set tightfit0 up
ip link set tightfit1 up
export ISOLATED_CLUSTERS=1
exec "$@"
' isolated "$@"
