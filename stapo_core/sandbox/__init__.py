"""Runs a foreign program in a cage of the kernel's making: Landlock, seccomp, limits, no network, an empty folder.

Three processes: ours (`host`), a fork server that knows nothing (`zygote`), and one caged child for each program
(`cage` locks it in, `inmate` runs the program). Must stay free of everything but the standard library: the fork server
imports this package without site-packages.
"""
