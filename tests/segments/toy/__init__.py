"""A back end for tests: native code of the CPU behind the interface of a simulator."""
