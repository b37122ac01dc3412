"""Who listens at a port: whose processor time is an endpoint's own, without having to be told."""

from pathlib import Path

LISTEN = "0A"


def _sockets(port: int) -> set[str]:
    """The listening sockets at a port, as links below /proc/PID/fd name them."""
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:  # a kernel without IPv6
            continue
        for fields in map(str.split, lines):
            if fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found


def _holds(process: Path, sockets: set[str]) -> bool:
    try:
        return any(str(link.readlink()) in sockets for link in (process / "fd").iterdir())
    except OSError:  # it has ended, or belongs to somebody else
        return False


def listeners(port: int) -> tuple[int, ...]:
    """The processes that have a socket listening at this port, as far as this user may see."""
    sockets = _sockets(port)
    if not sockets:
        return ()
    processes = (path for path in Path("/proc").iterdir() if path.name.isdigit())
    return tuple(sorted(int(process.name) for process in processes if _holds(process, sockets)))
