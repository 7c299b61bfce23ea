"""The commands of the command line, one module each.

Their modules import little; what a command needs is imported when it runs, so that every command starts fast.
"""
