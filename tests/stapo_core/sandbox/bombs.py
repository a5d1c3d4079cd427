"""Programs that want too much: each must end in one of the named ways, and leave nothing. Run in the cage alone."""

BOMBS: dict[str, tuple[set[str], str]] = {
    "forks": ({"timeout"}, "while True:\n  try: os.fork()\n  except OSError: pass"),
    "threads": ({"threads", "timeout"}, "while True: threading.Thread(target=time.sleep, args=(60,)).start()"),
    "memory": ({"by_itself"}, "held = []\nwhile True: held.append(bytes(2**26))"),
    "memory_at_once": ({"by_itself"}, "bytearray(3 * 2**30)"),
    "memory_by_mapping": ({"by_itself"}, "import mmap\nheld = []\nwhile True: held.append(mmap.mmap(-1, 2**26))"),
    "disk": (
        {"disk"},
        "for n in range(10**6):\n  with open(str(n), 'wb') as file: file.write(bytes(2**23))",
    ),
    "disk_by_one_file": ({"by_itself"}, "with open('x', 'wb') as file:\n  while True: file.write(bytes(2**22))"),
    "disk_without_names": (
        {"disk"},
        """held = []
for n in range(6):
  held.append(open('x', 'wb'))
  os.unlink('x')
  held[n].write(bytes(12 * 2**20))
time.sleep(60)""",
    ),
    "disk_that_never_had_a_name": (
        {"disk"},
        """held = []
for n in range(6):
  held.append(os.open('.', os.O_TMPFILE | os.O_RDWR))
  os.write(held[n], bytes(12 * 2**20))
time.sleep(60)""",
    ),
    "disk_under_a_page": (
        {"disk"},
        """import mmap
held = []
for n in range(200):
  with open('x', 'w+b') as file:
    file.write(bytes(12 * 2**20))
    held.append(mmap.mmap(file.fileno(), 4096))
  os.unlink('x')
time.sleep(60)""",
    ),
    "entries": ({"disk"}, "for n in range(10**7): open(str(n), 'w').close()"),
    "folders": ({"disk", "by_itself"}, "for _ in range(10**6):\n  os.mkdir('d')\n  os.chdir('d')"),
    "closed_folders": ({"by_itself"}, "for n in range(9):\n  os.mkdir(f'd{n}')\n  os.mkdir(f'd{n}/e', 0)"),
    "output": ({"output"}, "while True: print('x' * 10**6)"),
    "answers": ({"output"}, "while True: os.write(4, b'x' * 10**5)"),
    "errors": ({"timeout"}, "while True: print('x' * 10**6, file=sys.stderr)"),
    "descriptors": ({"by_itself"}, "while True: os.dup(0)"),
    "endless_loop": ({"timeout"}, "while True: pass"),
    "endless_sleep": ({"timeout"}, "time.sleep(60)"),
    "endless_sleep_deaf": (
        {"timeout"},
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))\nwhile True: time.sleep(60)",
    ),
    "endless_silence": ({"timeout"}, "os.closerange(0, 50)\nwhile True: time.sleep(60)"),
    "endless_threads": (
        {"timeout", "by_itself"},
        "def spin():\n  while True: pass\nfor _ in range(8): threading.Thread(target=spin).start()",
    ),
    "standard_input": ({"by_itself"}, "print(repr(sys.stdin.read()))"),
    "recursion": ({"by_itself"}, "def f(): return f()\nf()"),
    "recursion_in_c": ({"by_itself", "timeout"}, "held = []\nfor _ in range(10**5): held = [held]\nrepr(held)"),
    "crash": ({"by_itself"}, "ctypes.string_at(0)"),
    "leave_at_once": ({"by_itself"}, "os._exit(0)"),
}
