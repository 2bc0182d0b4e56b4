"""What runs requests: generations, their leases, and the switch between them.

Nothing here knows of files, imports or sockets.
"""
