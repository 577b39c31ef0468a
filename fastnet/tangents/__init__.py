"""Tangents of programs: the derivative of what a program computes, along a direction, as a program.

Each instruction y = K(a, b, …) has tangent instructions, ẏ = Σ ∂K/∂a·ȧ, made of other kernels. The tangent
of a forward is ẏ = J·ẋ, forward mode; that of a forward and its backward is H·v, since the gradient's
derivative along v is the Hessian times v.
"""
