"""Probes at files: reading what is not theirs, and leaving a trace outside the private folder.

A source after `#!` names the users for whom it must do harm without the cage: root, ordinary, both or none.
"""

PROBES = {
    "read_passwd": "#! both\ntell('/etc/passwd')",
    "read_state_folder": "#! both\ntell(W['state'] + '/api_key')",
    "read_job_config": "#! both\ntell(W['runs'] + '/config.json')",
    "read_other_run": "#! both\ntell(W['runs'] + '/other/x')",
    "list_state_folder": "#! both\nprint(os.listdir(W['state']))",
    "read_by_climbing": "#! both\ntell('../../../../../../..' + W['state'] + '/api_key')",
    "read_by_proc_root": "#! both\ntell('/proc/self/root' + W['state'] + '/api_key')",
    "read_by_proc_cwd": "#! both\ntell('/proc/self/cwd/../../../../../..' + W['state'] + '/api_key')",
    "read_by_victims_root": "#! both\ntell(f\"/proc/{W['victim']}/root\" + W['state'] + '/api_key')",
    "read_by_reopened_path": """#! both
fd = os.open(W['state'] + '/api_key', os.O_PATH)
tell(f'/proc/self/fd/{fd}')""",
    "read_by_folder_descriptor": """#! both
fd = os.open(W['state'], os.O_PATH | os.O_DIRECTORY)
print(os.read(os.open('api_key', os.O_RDONLY, dir_fd=fd), 99))""",
    "read_by_openat2": """#! both
how = struct.pack('QQQ', 0, 0, 0)
fd = call(437, -100, text(W['state'] + '/api_key'), how, 24)
print(os.read(fd, 99))""",
    "read_by_handle": """#! root
import ctypes
handle = ctypes.create_string_buffer(struct.pack('Ii', 128, 0) + bytes(128))
mount = ctypes.c_int()
reached(call(303, -100, text(W['state'] + '/api_key'), handle, ctypes.byref(mount), 0) == 0)
fd = call(304, os.open('/', os.O_RDONLY), handle, 0)
print(os.read(fd, 99))""",
    "read_by_symbolic_link": "#! both\nos.symlink(W['state'] + '/api_key', 'link')\ntell('link')",
    "read_by_hard_link": "#! both\nos.link(W['precious'], 'link')",
    "read_by_renamed_folder": "#! both\nos.mkdir('d')\nos.rename('d', W['open'] + '/d')",
    "race_links_against_the_host": """#! none
for _ in range(200):
    try:
        os.symlink(W['open'], 'd')
    except OSError:
        os.mkdir('d')
    os.rename('d', 'e')
    os.rmdir('e')""",
    "read_inherited_descriptors": """#! both
for fd in range(3, 1024):
    try:
        print(os.pread(fd, 99, 0))
    except OSError:
        continue""",
    "read_standard_error_and_answers": "#! none\nfor fd in (1, 2, 4):\n  print(os.read(fd, 99))",
    "read_environment": "#! both\nprint(dict(os.environ))",
    "read_environment_in_memory": """#! both
at = ctypes.c_void_p.in_dll(libc, '__libc_stack_end').value
while True:
    os.write(1, ctypes.string_at(at, 64))
    at += 64""",
    "read_victims_environment": "#! both\ntell(f\"/proc/{W['victim']}/environ\")",
    "read_hosts_environment": "#! both\ntell(f\"/proc/{W['host']}/environ\")",
    "read_parents_environment": "#! both\ntell(f'/proc/{os.getppid()}/environ')",
    "read_victims_memory_file": """#! both
with open(f"/proc/{W['victim']}/mem", 'rb', buffering=0) as memory:
    memory.seek(W['address'])
    print(memory.read(32))""",
    "write_victims_memory_file": """#! both
with open(f"/proc/{W['victim']}/mem", 'r+b', buffering=0) as memory:
    memory.seek(W['address'])
    memory.write(b'changed')""",
    "read_command_lines": """#! both
for pid in filter(str.isdigit, os.listdir('/proc')):
    try:
        tell(f'/proc/{pid}/environ')
    except OSError:
        continue""",
    "read_kernel_log": "#! none\nreached(call(103, 3, ctypes.create_string_buffer(4096), 4096) > 0)",
    "write_beside": "#! both\nopen(W['open'] + '/stranger', 'w').write('x')",
    "write_by_creat": "#! both\ncall(85, text(W['open'] + '/stranger'), 0o644)",
    "write_to_temporary_folder": "#! both\nopen('/tmp/stranger-' + W['open'].split('/')[-2], 'w').write('x')",
    "write_to_shared_memory": "#! both\nopen('/dev/shm/stranger-' + W['open'].split('/')[-2], 'w').write('x')",
    "append_to_file": "#! both\nopen(W['precious'], 'a').write('x')",
    "truncate_file": "#! both\nos.truncate(W['precious'], 1)",
    "remove_file": "#! both\nos.unlink(W['precious'])",
    "rename_file": "#! both\nos.rename(W['precious'], W['open'] + '/stranger')",
    "change_mode": "#! both\nos.chmod(W['precious'], 0o600)",
    "change_mode_by_descriptor": "#! none\nos.fchmod(os.open(W['precious'], os.O_PATH), 0o600)",
    "change_mode_by_fchmodat2": "#! none\ncall(452, -100, text(W['precious']), 0o600, 0)",
    "change_owner": "#! root\nos.chown(W['precious'], 1, 1)",
    "change_times": "#! both\nos.utime(W['precious'], (5, 5))",
    "set_attribute": "#! both\nos.setxattr(W['precious'], 'user.x', b'x')",
    "make_folder": "#! both\nos.mkdir(W['open'] + '/stranger')",
    "make_pipe": "#! both\nos.mkfifo(W['open'] + '/stranger')",
    "make_device": "#! root\nos.mknod(W['open'] + '/stranger', 0o20666, os.makedev(1, 1))",
    "make_device_within": "#! none\nos.mknod('disk', 0o60666, os.makedev(254, 0))\nreached(True)",
    "make_socket_file": """#! both
socket.socket(socket.AF_UNIX).bind(W['open'] + '/stranger')""",
    "watch_files": """#! both
fd = call(294, 0)
reached(call(254, fd, text(W['state']), 0xfff) >= 0)""",
    "watch_everything": "#! root\nreached(call(300, 0, 0) >= 0)",
    "open_terminal": "#! none\nopen('/dev/tty', 'w')\nreached(True)",
    "open_other_terminal": "#! none\nopen('/dev/ptmx', 'r+b', buffering=0)\nreached(True)",
    "lock_python_itself": """#! none
import fcntl
fcntl.flock(os.open(os.__file__, os.O_RDONLY), fcntl.LOCK_EX)
reached(True)""",
    "write_python_itself": "#! none\nopen(os.__file__, 'a').write('#')\nreached(True)",
}
