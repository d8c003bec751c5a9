"""``plain.py``, compiled."""

from rateway.cache.plain import Door as Door
from rateway.cache.plain import Echoes as Echoes
from rateway.cache.plain import divided as divided
from rateway.cache.plain import field as field
from rateway.cache.plain import find as find
from rateway.cache.plain import is_text as is_text
from rateway.cache.plain import less as less
from rateway.cache.plain import listed as listed
from rateway.cache.plain import merge as merge
from rateway.cache.plain import offline as offline
from rateway.cache.plain import page as page
from rateway.cache.plain import parted as parted
from rateway.cache.plain import presence as presence
from rateway.cache.plain import says as says
from rateway.cache.plain import tailed as tailed
