"""Read what is published: search, training sets, loaders, exports, explanations. May import all of this package but resources, maintenance, monitoring and costs."""
