s2 = """
import shlex
"""
