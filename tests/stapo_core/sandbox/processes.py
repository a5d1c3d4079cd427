"""Probes at processes and networks: talking to somebody, touching another process, leaving one behind.

A source after `#!` names the users for whom it must do harm without the cage: root, ordinary, both or none.
"""

PROBES = {
    # networks
    "connect_tcp": "#! both\nsocket.create_connection(('127.0.0.1', W['tcp']))",
    "connect_tcp_6": "#! none\nsocket.create_connection(('::ffff:127.0.0.1', W['tcp']))",
    "send_udp": "#! both\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', W['udp']))",
    "connect_path": "#! both\nsocket.socket(socket.AF_UNIX).connect(W['path'])",
    "send_to_abstract_name": """#! both
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'x', '\\0' + W['abstract'])""",
    "send_from_a_pair": """#! both
socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', '\\0' + W['abstract'])""",
    "send_message_from_a_pair": """#! both
socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendmsg([b'x'], [], 0, '\\0' + W['abstract'])""",
    "send_from_a_stream_pair": """#! none
socket.socketpair()[0].sendto(b'x', '\\0' + W['abstract'])""",
    "connect_a_pair": """#! both
pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0]
pair.connect('\\0' + W['abstract'])
pair.send(b'x')""",
    "listen_tcp": "#! both\nsocket.create_server(('127.0.0.1', 0))\nreached(True)",
    "listen_path": "#! both\nsocket.socket(socket.AF_UNIX).bind('here')\nreached(True)",
    "socket_netlink": "#! both\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW)\nreached(True)",
    "socket_raw": "#! root\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, 1)\nreached(True)",
    "socket_packet": "#! root\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)\nreached(True)",
    "socket_vsock": "#! none\nsocket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)\nreached(True)",
    "socket_alg": "#! none\nsocket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)\nreached(True)",
    "socket_by_number": "#! both\nreached(call(41, 2, 1, 0) >= 0)",
    # leaving a process behind
    "fork_a_survivor": "#! both\nif os.fork() == 0: time.sleep(60)",
    "fork_twice_in_a_new_session": """#! both
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)
time.sleep(0.1)""",
    "fork_by_number": "#! both\nif call(57) == 0: time.sleep(60)",
    "clone_by_number": "#! both\nif call(56, signal.SIGCHLD, 0, 0, 0, 0) == 0: time.sleep(60)",
    "clone_that_shares_nothing": "#! both\nif call(56, 0x80000000 | signal.SIGCHLD, 0, 0, 0, 0) == 0: time.sleep(60)",
    "clone3_by_number": """#! both
arguments = ctypes.create_string_buffer(struct.pack('8Q', 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0))
if call(435, arguments, 64) == 0: time.sleep(60)""",
    "vfork_by_number": """#! none
if call(58) == 0: os._exit(0)
reached(ctypes.get_errno() == 0)""",
    "run_a_shell": "#! both\nimport subprocess\nsubprocess.run(['/bin/sh', '-c', 'echo REACHED'])",
    "run_by_system": "#! both\nos.system('touch ' + W['open'] + '/stranger')",
    "run_by_spawn": "#! both\nos.posix_spawn('/bin/sh', ['sh', '-c', 'echo REACHED'], {})\ntime.sleep(0.1)",
    "become_a_shell": "#! both\nos.execv('/bin/sh', ['sh', '-c', 'echo REACHED'])",
    "become_by_execveat": """#! both
words = (ctypes.c_char_p * 4)(b'sh', b'-c', b'echo REACHED', None)
call(322, os.open('/bin/sh', os.O_RDONLY), text(''), words, 0, 0x1000)""",
    "become_by_memory_file": """#! both
fd = os.memfd_create('x')
os.write(fd, open('/bin/sh', 'rb').read())
os.execve(fd, ['sh', '-c', 'echo REACHED'], {})""",
    "become_a_file_of_its_own": """#! none
with open('x', 'wb') as file: file.write(b'#!/bin/sh\\necho REACHED\\n')
call(90, text('x'), 0o755)
os.execv('./x', ['x'])""",
    "become_privileged": "#! both\nos.execv('/usr/bin/passwd', ['passwd', '--help'])",
    "become_python": "#! none\nos.execv(sys.executable, ['python', '-c', 'print(\"REACHED\")'])",
    "start_in_the_background": """#! both
import multiprocessing
multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,), daemon=False).start()
os._exit(0)""",
    # touching another process
    "kill_victim": "#! both\nos.kill(W['victim'], signal.SIGKILL)\ntime.sleep(0.1)",
    "stop_victim": "#! both\nos.kill(W['victim'], signal.SIGSTOP)\ntime.sleep(0.1)",
    "kill_victims_group": "#! both\nos.killpg(W['victim'], signal.SIGKILL)\ntime.sleep(0.1)",
    "kill_by_tkill": "#! both\ncall(200, W['victim'], 9)\ntime.sleep(0.1)",
    "kill_by_tgkill": "#! both\ncall(234, W['victim'], W['victim'], 9)\ntime.sleep(0.1)",
    "kill_by_queue": """#! both
info = ctypes.create_string_buffer(struct.pack('iiiii', 9, 0, -1, 0, 0) + bytes(108))
call(129, W['victim'], 9, info)
time.sleep(0.1)""",
    "kill_by_descriptor": """#! both
call(424, call(434, W['victim'], 0), 9, None, 0)
time.sleep(0.1)""",
    "kill_by_owned_pipe": """#! both
import fcntl
ours, theirs = os.pipe()
fcntl.fcntl(ours, 8, W['victim'])
fcntl.fcntl(ours, 10, signal.SIGKILL)
fcntl.fcntl(ours, 4, 0o20000 | os.O_NONBLOCK)
os.write(theirs, b'x')
time.sleep(0.1)""",
    "kill_parent": "#! none\nos.kill(os.getppid(), signal.SIGKILL)",
    "kill_host": "#! none\nos.kill(W['host'], signal.SIGKILL)",
    "kill_everybody": "#! none\nos.kill(-1, signal.SIGKILL)",
    "kill_parents_group": "#! none\ncall(62, -os.getppid(), 9)",
    "trace_victim": "#! both\nreached(call(101, 16, W['victim'], 0, 0) == 0)\ntime.sleep(0.1)",
    "seize_victim": "#! both\nreached(call(101, 0x4206, W['victim'], 0, 0) == 0)",
    "trace_parent": "#! none\nreached(call(101, 0x4206, os.getppid(), 0, 0) == 0)",
    "ask_to_be_traced": "#! both\nreached(call(101, 0, 0, 0, 0) == 0)",
    "read_victims_memory": """#! both
held = ctypes.create_string_buffer(32)
ours, theirs = ((ctypes.c_size_t * 2)(at, 32) for at in (ctypes.addressof(held), W['address']))
call(310, W['victim'], ours, 1, theirs, 1, 0)
print(held.raw)""",
    "write_victims_memory": """#! both
held = ctypes.create_string_buffer(32)
ours, theirs = ((ctypes.c_size_t * 2)(at, 32) for at in (ctypes.addressof(held), W['address']))
call(311, W['victim'], ours, 1, theirs, 1, 0)""",
    "read_parents_memory": """#! none
held = ctypes.create_string_buffer(32)
ours, theirs = ((ctypes.c_size_t * 2)(at, 32) for at in (ctypes.addressof(held), id(held)))
reached(call(310, os.getppid(), ours, 1, theirs, 1, 0) > 0)""",
    "limit_victim": "#! both\nimport resource\nresource.prlimit(W['victim'], resource.RLIMIT_NOFILE, (9, 9))",
    "move_victim": """#! both
cpus = os.sched_getaffinity(W['victim'])
os.sched_setaffinity(W['victim'], {min(cpus)})""",
    "slow_victim": "#! both\nos.setpriority(os.PRIO_PROCESS, W['victim'], 19)",
    "offer_victim_to_the_memory_killer": """#! both
open(f"/proc/{W['victim']}/oom_score_adj", 'w').write('1000')""",
    "steal_a_descriptor": "#! both\nreached(call(438, call(434, W['victim'], 0), 0, 0) >= 0)",
    "compare_with_victim": "#! both\nreached(call(312, os.getpid(), W['victim'], 2, 0, 0) >= 0)",
    "outlive_its_parent": "#! both\nreached(libc.prctl(1, 0) == 0)",
    "open_itself_to_others": "#! both\nreached(libc.prctl(4, 1, 0, 0, 0) == 0)",
    "leave_its_session": "#! none\nreached(call(112) >= 0)",
    "leave_its_group": "#! none\nreached(call(109, 0, os.getppid()) == 0)",
    "leave_its_core": """#! none
try:
    os.sched_setaffinity(0, range(64))
except OSError:
    pass
reached(len(os.sched_getaffinity(0)) > 1)""",
}
