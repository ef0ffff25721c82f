"""System: files, locks, memory and processes: what knows the operating system, and no benchmark."""
