"""How a command comes in: described once by its class, checked, run in one transaction, answered.

What must stay true: a command class is the only description of a command (listApis, OpenAPI and the docs derive from
it); every parameter that CloudStack's command has is a field of the class or named in ``unsupported``; an object that
the caller may not see is answered exactly like one that does not exist.
"""
