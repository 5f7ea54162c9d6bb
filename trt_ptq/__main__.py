"""python -m trt_ptq"""

from trt_ptq.cli.main import main

if __name__ == "__main__":
    main()
