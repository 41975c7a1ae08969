"""Shows swtpm, which listens on a Unix socket, as a character device, and writes the path of that.

The kernel's device takes a command in one write and gives the answer in one read; so does this one, a raw terminal.
"""

import os
import pty
import socket
import sys
import tty


def packet(read):
    """Reads a command or an answer: a tag of two bytes, its whole size in four, and the rest."""
    data = b""
    while len(data) < 6 or len(data) < int.from_bytes(data[2:6], "big"):
        more = read(4096)
        if not more:
            sys.exit(0)
        data += more
    return data


def main():
    master, device = pty.openpty()
    tty.setraw(device)
    tpm = socket.socket(socket.AF_UNIX)
    tpm.connect(sys.argv[1])
    print(os.ttyname(device), flush=True)
    while True:
        tpm.sendall(packet(lambda size: os.read(master, size)))
        os.write(master, packet(tpm.recv))


main()
