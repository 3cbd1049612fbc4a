from lib import *
import gen3
write("w2")
