"""The program, as it is installed and as `python -m kubectl_llmdoctor`."""

import gc

#: New objects between two searches for garbage: thousands of pods are read and stay, and a run is soon over.
_GARBAGE = 200_000


def main() -> None:
    """Run it and exit."""
    gc.set_threshold(_GARBAGE)  # before what is loaded: of that nothing is garbage
    from kubectl_llmdoctor import cli

    cli.main()


if __name__ == "__main__":
    main()
