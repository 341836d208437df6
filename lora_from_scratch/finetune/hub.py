"""Whether a model hub answers, asked once and quickly."""

import functools
import os
import threading
import urllib.error
import urllib.request

PATIENCE = 2.0  # seconds; the hub's own client gives up only after 20 to 50


@functools.cache
def hub_answers() -> bool:
    """Ask the hub once in this process, for at most two seconds.

    If it does not answer, the hub's libraries are switched to offline mode, so that
    they use what they have cached and otherwise fail at once.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        answers = False
    else:
        reply: list[bool] = []
        # In a thread, since a name lookup can hang for longer than any timeout.
        thread = threading.Thread(target=lambda: reply.append(_ask()), daemon=True)
        thread.start()
        thread.join(PATIENCE)
        answers = bool(reply and reply[0])
    if not answers:
        _go_offline()
    return answers


def _ask() -> bool:
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        request = urllib.request.Request(address, method="HEAD")
        urllib.request.urlopen(request, timeout=PATIENCE).close()
    except urllib.error.HTTPError:
        return True  # it answered, even if it said no
    except (OSError, ValueError):
        return False
    return True


def _go_offline() -> None:
    # Both libraries read the environment when they are imported, which may have happened already.
    os.environ["HF_HUB_OFFLINE"] = "1"
    import datasets.config
    import huggingface_hub.constants

    huggingface_hub.constants.HF_HUB_OFFLINE = True
    datasets.config.HF_HUB_OFFLINE = True
