"""python -m trt_ptq"""

from trt_ptq.cli.main import main

main()
