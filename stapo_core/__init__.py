"""The trainer: config in, events and files out. It knows no job, tenant, queue, database or HTTP."""
