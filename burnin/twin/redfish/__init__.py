"""The Redfish services of a twin rack: BMCs of compute and switch trays, power shelves, the CDU; one process for all.

http      requests and answers over TLS, on plain asyncio      service  sessions, queries, events, bad manners
tree      resources by path                                   logs     log services and what they tell subscribers
bmc, switch, shelf, cdu     what each kind of service shows    process  the process, and the loop's physics in it
"""
