"""``plain.py``, compiled."""

from rateway.native.objects.plain import NUMBERS as NUMBERS
from rateway.native.objects.plain import CacheFastPath as CacheFastPath
from rateway.native.objects.plain import SeenFingerprints as SeenFingerprints
from rateway.native.objects.plain import append_to_each as append_to_each
from rateway.native.objects.plain import drop_fields as drop_fields
from rateway.native.objects.plain import field as field
from rateway.native.objects.plain import find as find
from rateway.native.objects.plain import is_offline as is_offline
from rateway.native.objects.plain import is_part_of as is_part_of
from rateway.native.objects.plain import is_text as is_text
from rateway.native.objects.plain import list_by_id as list_by_id
from rateway.native.objects.plain import merge as merge
from rateway.native.objects.plain import page as page
from rateway.native.objects.plain import read_presence as read_presence
from rateway.native.objects.plain import split_field as split_field
from rateway.native.objects.plain import split_lists as split_lists
