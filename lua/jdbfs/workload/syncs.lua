return require("jdbfs.workload").define({ about = "x", jobs = { a = { main = function() end } } })
