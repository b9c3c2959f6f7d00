"""Load off on one tray at once, by a shell alone: an agent sees a file that comes, and answers with another.

For an emergency without a controller. A Python that has to start on each tray takes longer than everything else of it.
"""

from __future__ import annotations

import shlex

from burnin.transport.lean import asyncssh
from burnin.transport.ssh import Endpoint, shell

TAKE_S, WAIT_S = 1.0, 3.0
"""How long the agent may take to see the file (it is told; else it looks, every 0.1 s under load), and to answer (what goes on
is killed after 0.3 s)."""
LOOK_S = 0.05


async def by_file(connection: asyncssh.SSHClientConnection, at: Endpoint, run: str, why: str) -> int | None:
    """How many GPUs were loaded, and are not any more. None where this way does not lead there: no agent, an older one, another
    run's, a directory that cannot be written. Raises TrayError when the link goes."""
    text = f"""
cd {shlex.quote(at.dir)} 2>/dev/null && [ -S holder.sock ] && umask 077 && : > halted || exit 1
printf '%s\\n%s\\n' {shlex.quote(run)} {shlex.quote(why)} > .halt.$$ && mv .halt.$$ halt || {{ rm -f .halt.$$ halted; exit 1; }}
n=0
while [ $n -lt {round(WAIT_S / LOOK_S)} ]; do
  [ -s halted ] && cat halted && rm -f halted && exit 0
  [ -f halt ] && [ $n -ge {round(TAKE_S / LOOK_S)} ] && break
  sleep {LOOK_S:g}; n=$((n + 1))
done
rm -f halt halted
exit 1
"""
    answer = await shell(connection, f"sudo -n sh -c {shlex.quote(text)}" if at.become else text, timeout_s=WAIT_S + 4)
    said = answer.out.strip()
    return int(said) if answer.status == 0 and said.isdigit() else None


async def living(connection: asyncssh.SSHClientConnection, at: Endpoint) -> list[int] | None:
    """Processes of any agent at home or beside `at.dir` on the tray; None where they cannot be read. They are found without that
    directory, which may be gone while they live; one that does not say where it is counts.
    """
    text = f"""
[ -r /proc/$$/cmdline ] || exit 1
home=$(pwd -P); beside=$(dirname {shlex.quote(at.dir)})
for p in $(grep -alE 'agent-[0-9a-f]{{16}}[.]pyz' /proc/[0-9]*/cmdline 2>/dev/null); do
  p=${{p%/cmdline}}
  case $(readlink "$p/cwd") in "${{home%/}}"/* | "${{beside%/}}"/*) ;; /*) continue ;; esac
  [ -e "$p" ] && echo "${{p#/proc/}}"
done
exit 0
"""
    answer = await shell(connection, f"sudo -n sh -c {shlex.quote(text)}" if at.become else text, timeout_s=WAIT_S + 4)
    words = answer.out.split()
    return [int(word) for word in words] if answer.status == 0 and all(map(str.isdigit, words)) else None
