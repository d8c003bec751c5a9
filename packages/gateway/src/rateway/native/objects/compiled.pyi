"""``plain.py``, compiled."""

from rateway.native.objects.plain import Door as Door
from rateway.native.objects.plain import SeenFingerprints as SeenFingerprints
from rateway.native.objects.plain import divided as divided
from rateway.native.objects.plain import field as field
from rateway.native.objects.plain import find as find
from rateway.native.objects.plain import is_text as is_text
from rateway.native.objects.plain import less as less
from rateway.native.objects.plain import listed as listed
from rateway.native.objects.plain import merge as merge
from rateway.native.objects.plain import offline as offline
from rateway.native.objects.plain import page as page
from rateway.native.objects.plain import parted as parted
from rateway.native.objects.plain import presence as presence
from rateway.native.objects.plain import says as says
from rateway.native.objects.plain import tailed as tailed
