"""The console: the node's page for people, as files a browser loads. Nothing in it comes from another host.

Enters: nothing. Leaves: the files beside this one. The node's doors serve them.
"""
