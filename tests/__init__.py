"""Tests of coke."""

import os

from tests.support.pretended_machine import pretend

pretend(os.environ)  # before any module of coke asks what machine this is
