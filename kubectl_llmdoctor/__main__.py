"""`python -m kubectl_llmdoctor`."""

from kubectl_llmdoctor.cli import main

main()
