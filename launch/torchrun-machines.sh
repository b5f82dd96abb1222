#!/usr/bin/env bash
# One run on several machines. Give the same command on each of them, in any order:
#
#   RENDEZVOUS=first-machine:29400 launch/torchrun-machines.sh train RECIPE --data DIR --out DIR
#
# --data and --out are folders that all machines see. A process or a machine that ends makes the others start again from
# the last checkpoint (--run.checkpoint-every-minutes, 15 by default), with as many machines as are left; one that comes
# back (the same command) is taken in. The machine of RENDEZVOUS has to stay.
#
# RENDEZVOUS  HOST:PORT of the machine that stays; the port is free there and the others reach it
# MACHINES    least:most, default 1:4
# PROCESSES   per machine; default auto: one per GPU, without GPUs one per core
# RESTARTS    how many failures of processes are forgiven, default 3
# LAST_CALL   seconds in which more machines may come once the least number is there, default 20
# RUN         any name; runs with the same RENDEZVOUS and different names do not meet
# ADDRESS     this machine's address, if the others do not find it by its host name
# PYTHON      default python3
# With several network cards, say to gloo and NCCL which: GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME.
set -euo pipefail

# last_call_timeout: once the least number of machines is there, how long to wait for more of them. A machine that
# vanished is given up after keep_alive_interval * keep_alive_max_attempt = 15 s, which are torchrun's own numbers.
settings="last_call_timeout=${LAST_CALL:-20},join_timeout=600"
if [[ "${ADDRESS:-}" == "${RENDEZVOUS%:*}" ]]; then  # else torchrun finds out by names and addresses
    settings+=",is_host=1"
fi
exec "${PYTHON:-python3}" -m botformer.torchrun \
    --nnodes "${MACHINES:-1:4}" \
    --nproc-per-node "${PROCESSES:-auto}" \
    --max-restarts "${RESTARTS:-3}" \
    --rdzv-backend c10d \
    --rdzv-endpoint "${RENDEZVOUS:?HOST:PORT of the machine that stays}" \
    --rdzv-id "${RUN:-botformer}" \
    --rdzv-conf "$settings" \
    ${ADDRESS:+--local-addr "$ADDRESS"} \
    -m botformer.cli "$@"
