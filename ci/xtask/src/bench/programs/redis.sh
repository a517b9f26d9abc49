# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# A server, and a client that sets and reads keys at random.
set -e
socket=$(mktemp -d)/redis
redis-server --port 0 --unixsocket "$socket" --save '' --appendonly no > /dev/null &
until redis-cli -s "$socket" ping > /dev/null 2>&1; do :; done
redis-benchmark -q -s "$socket" -t set,get -n 20000 -r 50000 -d 400
redis-cli -s "$socket" shutdown nosave || true
wait
