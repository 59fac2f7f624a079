-- Medians and quartiles of the ratios that the benches print.

local M = {}

-- By linear interpolation.
local function quantile(list, q)
  local sorted = {}
  for i, value in ipairs(list) do sorted[i] = value end
  table.sort(sorted)
  local at = 1 + q * (#sorted - 1)
  local low = math.floor(at)
  return sorted[low] + (sorted[math.min(low + 1, #sorted)] - sorted[low]) * (at - low)
end

function M.median(list) return quantile(list, 0.5) end

function M.text(list)
  return ("%.2f [%.2f, %.2f]"):format(quantile(list, 0.5), quantile(list, 0.25),
    quantile(list, 0.75))
end

return M
