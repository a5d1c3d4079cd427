"""Which system calls a caged program may make on x86-64 Linux, by name and number. Pure.

What is not named here is refused: sockets, processes, signals to others, namespaces, mounts, modes and owners of
files, symbolic and hard links, System V and POSIX queues, keys, bpf, io_uring, userfaultfd, perf, clocks, modules, and
whatever a later kernel adds.
"""

from __future__ import annotations

ALLOWED = {
    # files: which of them is Landlock's business
    "read": 0, "write": 1, "open": 2, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "lseek": 8, "pread64": 17,
    "pwrite64": 18, "readv": 19, "writev": 20, "access": 21, "dup": 32, "dup2": 33, "sendfile": 40, "fsync": 74,
    "fdatasync": 75, "ftruncate": 77, "getcwd": 79, "chdir": 80, "fchdir": 81, "rename": 82, "mkdir": 83, "rmdir": 84,
    "creat": 85, "unlink": 87, "readlink": 89, "umask": 95, "statfs": 137, "fstatfs": 138, "getdents64": 217,
    "fadvise64": 221, "openat": 257, "mkdirat": 258, "newfstatat": 262, "unlinkat": 263, "renameat": 264,
    "readlinkat": 267, "faccessat": 269, "dup3": 292, "preadv": 295, "pwritev": 296, "renameat2": 316,
    "copy_file_range": 326, "preadv2": 327, "pwritev2": 328, "statx": 332, "close_range": 436, "faccessat2": 439,
    # memory
    "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "mremap": 25, "madvise": 28,
    # waiting
    "poll": 7, "pipe": 22, "select": 23, "sched_yield": 24, "pause": 34, "nanosleep": 35, "getitimer": 36, "alarm": 37,
    "setitimer": 38, "epoll_create": 213, "restart_syscall": 219, "clock_nanosleep": 230, "epoll_wait": 232,
    "epoll_ctl": 233, "pselect6": 270, "ppoll": 271, "epoll_pwait": 281, "timerfd_create": 283, "timerfd_settime": 286,
    "timerfd_gettime": 287, "eventfd2": 290, "epoll_create1": 291, "pipe2": 293,
    # its own signals and threads
    "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "exit": 60, "rt_sigpending": 127,
    "rt_sigtimedwait": 128, "rt_sigsuspend": 130, "sigaltstack": 131, "futex": 202, "sched_getaffinity": 204,
    "set_tid_address": 218, "exit_group": 231, "set_robust_list": 273, "membarrier": 324, "rseq": 334,
    # questions about itself and the time
    "getpid": 39, "uname": 63, "gettimeofday": 96, "getrlimit": 97, "getrusage": 98, "sysinfo": 99, "times": 100,
    "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "getppid": 110, "getpgrp": 111, "getgroups": 115,
    "getresuid": 118, "getresgid": 120, "setrlimit": 160, "gettid": 186, "time": 201, "clock_gettime": 228,
    "clock_getres": 229, "getrandom": 318,
    # a connected pair of its own, which asyncio wakes itself by
    "recvfrom": 45, "shutdown": 48, "getsockname": 51, "getsockopt": 55,
}  # fmt: skip
"""Allowed whatever their arguments."""

IOCTL, SENDTO, SOCKETPAIR, CLONE, KILL, FCNTL, PRCTL = 16, 44, 53, 56, 62, 72, 157
TKILL, TGKILL, PRLIMIT64, SECCOMP, CLONE3 = 200, 234, 302, 317, 435
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
