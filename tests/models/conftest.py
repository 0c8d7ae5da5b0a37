from tests.managed_servers import stand_in as stand_in
from tests.tiny_checkpoints import tiny_checkpoint as tiny_checkpoint
from tests.tiny_checkpoints import trained_checkpoint as trained_checkpoint
