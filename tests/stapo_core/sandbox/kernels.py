"""Probes at the kernel: names, mounts, keys, programs for it, rights, shared memory, the clock, other calling ways.

A source after `#!` names the users for whom it must do harm without the cage: root, ordinary, both or none.
"""

PROBES = {
    "namespace_of_users": "#! both\nreached(call(272, 0x10000000) == 0)",
    "namespace_of_mounts": "#! root\nreached(call(272, 0x00020000) == 0)",
    "namespace_of_networks": "#! root\nreached(call(272, 0x40000000) == 0)",
    "namespace_by_clone": "#! both\nif call(56, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0) == 0: time.sleep(60)",
    "namespace_of_another": """#! root
reached(call(308, os.open(f"/proc/{W['victim']}/ns/net", os.O_RDONLY), 0) == 0)""",
    "mount": "#! none\nreached(call(165, text('none'), text(W['open']), text('tmpfs'), 0, None) == 0)",
    "mount_by_descriptor": "#! root\nreached(call(430, text('tmpfs'), 0) >= 0)",
    "unmount": "#! none\nreached(call(166, text('/dev/shm'), 2) == 0)",
    "copy_a_tree_of_mounts": "#! root\nreached(call(428, -100, text('/'), 1) >= 0)",
    "change_root": "#! root\nreached(call(161, text('/')) == 0)",
    "pivot_root": "#! none\nreached(call(155, text('.'), text('.')) == 0)",
    "add_key": "#! both\nreached(call(248, text('user'), text('k'), text('x'), 1, -3) >= 0)",
    "ask_for_key": "#! both\nreached(call(250, 0, -3, 1) >= 0)",
    "load_a_kernel_program": """#! root
attributes = ctypes.create_string_buffer(struct.pack('IIII', 2, 4, 4, 1) + bytes(112))
reached(call(321, 0, attributes, 128) >= 0)""",
    "count_events": """#! root
attributes = ctypes.create_string_buffer(struct.pack('IIQ', 1, 128, 0) + bytes(112))
reached(call(298, attributes, 0, -1, -1, 0) >= 0)""",
    "handle_page_faults": "#! root\nreached(call(323, 0) >= 0)",
    "ring_of_requests": "#! both\nreached(call(425, 8, ctypes.create_string_buffer(120)) >= 0)",
    "queue_of_requests": "#! both\nreached(call(206, 8, ctypes.byref(ctypes.c_ulong())) == 0)",
    "memory_file": "#! both\nreached(os.memfd_create('x') >= 0)",
    "secret_memory": "#! none\nreached(call(447, 0) >= 0)",
    "shared_memory_segment": "#! both\nreached(call(29, W['key'], 4096, 0o1600) >= 0)",
    "semaphores": "#! both\nreached(call(64, W['key'], 1, 0o1600) >= 0)",
    "message_queue": "#! both\nreached(call(68, W['key'], 0o1600) >= 0)",
    "posix_queue": """#! both
name = text(f"stranger-{W['key']}")
reached(call(240, name, 0o102, 0o600, None) >= 0)
call(241, name)""",
    "lock_memory": "#! root\nreached(call(151, 3) == 0)",
    "become_root": "#! none\nos.setresuid(0, 0, 0)\nreached(True)",
    "become_nobody": "#! root\nos.setresuid(65534, 65534, 65534)\nreached(True)",
    "set_groups": "#! root\nos.setgroups([0])\nreached(True)",
    "keep_capabilities": """#! both
header = ctypes.create_string_buffer(struct.pack('Ii', 0x20080522, 0))
reached(call(126, header, bytes(24)) == 0)""",
    "has_capabilities": """#! root
header, held = ctypes.create_string_buffer(struct.pack('Ii', 0x20080522, 0)), ctypes.create_string_buffer(24)
call(125, header, held)
reached(any(held.raw))""",
    "is_root": "#! root\nreached(os.getuid() == 0 or 0 in os.getgroups())",
    "reboot": "#! none\nreached(call(169, 0xfee1dead, 672274793, 0, None) == 0)",
    "set_clock": "#! none\ntime.clock_settime(time.CLOCK_REALTIME, 0)",
    "adjust_clock": """#! root
by_nothing = ctypes.create_string_buffer(struct.pack('I', 0x8001) + bytes(300))
reached(call(159, by_nothing) >= 0)""",
    "set_host_name": "#! root\nname = os.uname().nodename\nreached(call(170, text(name), len(name)) == 0)",
    "load_module": "#! none\nreached(call(175, None, 0, text('')) == 0)",
    "load_module_from_file": "#! none\nreached(call(313, os.open(os.__file__, os.O_RDONLY), text(''), 0) == 0)",
    "load_another_kernel": "#! none\nreached(call(246, 0, 0, None, 0) == 0)",
    "ports_of_the_machine": "#! none\nreached(call(173, 0x80, 1, 1) == 0)",
    "privilege_level": "#! none\nreached(call(172, 3) == 0)",
    "local_descriptors": "#! both\nreached(call(154, 0, ctypes.create_string_buffer(16), 16) >= 0)",
    "personality": "#! both\nreached(call(135, 0x0040000) >= 0)",
    "real_time": """#! root
reached(call(144, 0, 1, ctypes.create_string_buffer(struct.pack('i', 1))) == 0)""",
    "quota": "#! none\nreached(call(179, 0x800001, None, 0, None) == 0)",
    "swap": "#! none\nreached(call(168, text('/dev/shm')) == 0)",
    "accounting": "#! root\nreached(call(163, None) == 0)",
    "handle_of_a_file": """#! both
handle = ctypes.create_string_buffer(struct.pack('Ii', 128, 0) + bytes(128))
reached(call(303, -100, text('/'), handle, ctypes.byref(ctypes.c_int()), 0) == 0)""",
    "feed_its_terminal": """#! none
import fcntl
for fd in range(5):
    try:
        fcntl.ioctl(fd, 0x5412, b'x')
        reached(True)
    except OSError:
        continue""",
    "signals_by_ioctl": """#! both
import fcntl
ours, theirs = socket.socketpair()
fcntl.ioctl(ours, 0x8901, struct.pack('i', W['victim']))
reached(True)""",
    "old_numbers_of_another_width": "#! none\nreached(call(0x40000000 + 2, text(W['state'] + '/api_key'), 0) >= 0)",
    "calls_of_another_machine": "#! none\nreached(machine('b814000000cd80c3') > 0)",
    "mount_of_another_machine": "#! none\nreached(machine('b815000000cd80c3') == 0)",
    "calls_beyond_the_table": "#! none\nreached(call(-1) >= 0)",
    "less_filtering": """#! none
line = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0x7fff0000))
program = ctypes.create_string_buffer(struct.pack('HxxxxxxP', 1, ctypes.addressof(line)))
call(317, 1, 0, program)
libc.prctl(22, 2, program)
tell(W['state'] + '/api_key')""",
    "another_ruleset": """#! none
rights = ctypes.create_string_buffer(struct.pack('QQQ', 4, 0, 0))
reached(call(444, rights, 24, 0) >= 0)""",
    "raise_its_limits": """#! none
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (2**40, 2**40))
reached(True)""",
}
